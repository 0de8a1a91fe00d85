#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the programs say in --help, what their manuals say and what the completion offers are the
# same options and commands.
#
#     test_manuals.sh <build directory> <source directory>
set -u
build=$1
source=$2
failed=0

fail()
{
    echo "test_manuals: $*" >&2
    failed=1
}

# The manual as plain text.
manual()
{
    groff -mandoc -Tascii -P-c -P-b -P-u "$source/docs/man/$1.1" 2>/dev/null
}

# $1: program, $2: word; it must stand in the manual.
in_manual()
{
    grep -qF -- "$2" <<<"$text" || fail "$1.1 does not name $2"
}

# Completes a line and prints what is offered.
offer()
{
    COMP_LINE=$1
    COMP_POINT=${#1}
    COMPREPLY=()
    "_${1%% *}"
    printf '%s\n' "${COMPREPLY[@]}"
}

. "$source/tools/completion/chrysalis.bash" 2>/dev/null

# $1: line to complete, $2: words that must be offered, whole
offers()
{
    local offered word

    offered=$(offer "$1")
    for word in $2; do
        grep -qxF -- "$word" <<<"$offered" || fail "'$1' does not offer '$word'"
    done
}

if command -v groff >/dev/null; then
    for program in chvmm chctl chsnap; do
        [ -z "$(groff -mandoc -Tascii -ww "$source/docs/man/$program.1" 2>&1 >/dev/null)" ] ||
            fail "$program.1: groff complains"
    done
fi

options=$("$build/chvmm" --help | grep -oE '^  (-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+')
[ "$(wc -l <<<"$options")" -ge 20 ] || fail "chvmm --help lists too few options"
text=$(manual chvmm)
for option in $options; do
    [ -z "$text" ] || in_manual chvmm "$option"
done
offers "chvmm --" "$options"
[ "$(offer "chvmm --" | sort)" = "$(sort <<<"$options")" ] || fail "chvmm: other options offered"

commands=$("$build/chctl" --help | sed -n '/^Asking:/,/^Options:/s/^  \([a-z-]*\) .*/\1/p')
[ "$(wc -l <<<"$commands")" -ge 20 ] || fail "chctl --help lists too few commands"
text=$(manual chctl)
for command in $commands; do
    [ -z "$text" ] || in_manual chctl "$command"
done
[ "$(offer "chctl " | sort)" = "$( (echo help; echo "$commands") | sort)" ] ||
    fail "chctl: other commands offered"

if [ -x "$build/chsnap" ]; then
    commands=$("$build/chsnap" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
    text=$(manual chsnap)
    for command in $commands; do
        [ -z "$text" ] || in_manual chsnap "$command"
        options=$("$build/chsnap" "$command" --help | grep -oE '^  (-., |    )--[a-z-]+' |
            grep -oE -- '--[a-z-]+')
        offers "chsnap $command --" "$options"
        [ "$(offer "chsnap $command --" | sort)" = "$(sort <<<"$options")" ] ||
            fail "chsnap $command: other options offered"
    done
    [ "$(offer "chsnap " | sort)" = "$( (echo help; echo "$commands") | sort)" ] ||
        fail "chsnap: other commands offered"
fi

# readline replaces what follows the last "=" or ":".
offers "chvmm --disk path=/a,read" "/a,readonly="
offers "chvmm --disk path=/a path=/b,readonly=o" "on off"
offers "chvmm --disk lock_granularity=f" "full"
offers "chvmm --seccomp l" "log"
offers "chvmm --serial p" "pty"
offers "chctl --api-socket /a restore res" "resume="
offers "chctl send-migration destination_url=tcp:h:1,timeout_strategy=c" "cancel"
offers "chctl migration-progress -" "--follow"
exit $failed
