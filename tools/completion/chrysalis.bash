# SPDX-License-Identifier: Apache-2.0
# Completion of chvmm, chctl and chsnap for bash.

# Splits the line up to the cursor at blanks only: words keep their "=", ":" and ",".
# Sets words (all but the last) and cur (the last, maybe empty).
_chrysalis_words()
{
    local line=${COMP_LINE:0:COMP_POINT}

    read -ra words <<<"$line"
    cur=
    if [[ $line != *[[:space:]] ]]; then
        cur=${words[-1]}
        unset 'words[-1]'
    fi
}

# Offers words that begin with $1.  $2: what of the current word stands before $1.
_chrysalis_reply()
{
    local part=$1 before=$2 breaks

    shift 2
    mapfile -t COMPREPLY < <(compgen -W "$*" -- "$part")
    # readline replaces only what follows the last of its word breaks.
    breaks=${before##*[=:]}
    if [[ $before == *[=:]* ]]; then
        COMPREPLY=("${COMPREPLY[@]/#/$breaks}")
    else
        COMPREPLY=("${COMPREPLY[@]/#/$before}")
    fi
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}

_chrysalis_files()
{
    mapfile -t COMPREPLY < <(compgen -f -- "$1")
    compopt -o filenames 2>/dev/null
    return 0
}

# Keys of a value "key=value,key=value": $1 is the word, the rest are the keys.
_chrysalis_keys()
{
    local word=$1 before= last=$1

    shift
    if [[ $word == *,* ]]; then
        before=${word%,*},
        last=${word##*,}
    fi
    case $last in
    path=* | file=* | socket=* | src=* | tls_dir=*) _chrysalis_files "${last#*=}" ;;
    access=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" r w rw ;;
    image_type=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" raw ;;
    lock_granularity=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" byte-range full ;;
    memory_mode=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" precopy postcopy ;;
    memory_restore_mode=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" auto copy ondemand mapped ;;
    timeout_strategy=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" cancel ignore ;;
    *=*) _chrysalis_reply "${last#*=}" "$before${last%%=*}=" on off ;;
    *) _chrysalis_reply "$last" "$before" "$@" ;;
    esac
}

_chvmm_value()
{
    local memory="size= shared= mergeable= hugepages= hugepage_size= prefault= reserve="
    local console="off null tty pty file="

    case $1 in
    --kernel | --initramfs | --log-file) _chrysalis_files "$cur" ;;
    --api-socket) _chrysalis_files "$cur" ;;
    --cpus)
        _chrysalis_keys "$cur" boot= max= topology= max_phys_bits= nested= "features=[amx]"
        ;;
    --memory) _chrysalis_keys "$cur" $memory thp= ;;
    --memory-zone) _chrysalis_keys "$cur" id= file= $memory ;;
    --disk)
        _chrysalis_keys "$cur" path= readonly= direct= num_queues= queue_size= serial= sparse= \
            image_type= lock_granularity= id= pci_device_id=
        ;;
    --net)
        _chrysalis_keys "$cur" tap= fd= ip= mask= mac= host_mac= mtu= num_queues= queue_size= \
            offload_tso= offload_ufo= offload_csum= id= pci_device_id=
        ;;
    --rng) _chrysalis_keys "$cur" src= pci_device_id= ;;
    --serial) _chrysalis_keys "$cur" $console socket= ;;
    --console) _chrysalis_keys "$cur" $console pci_device_id= ;;
    --debug-console) _chrysalis_keys "$cur" $console iobase= ;;
    --platform)
        _chrysalis_keys "$cur" system_uuid= system_manufacturer= system_product_name= \
            system_version= system_serial_number= system_sku_number= system_family= \
            chassis_asset_tag= oem_strings=
        ;;
    --restore) _chrysalis_keys "$cur" $_chrysalis_restore ;;
    --event-monitor) _chrysalis_keys "$cur" path= fd= ;;
    --end-with) _chrysalis_keys "$cur" fd= ;;
    --landlock-rules) _chrysalis_keys "$cur" path= access= ;;
    --seccomp) _chrysalis_reply "$cur" "" true false log errno ;;
    *) return 1 ;;
    esac
}

_chrysalis_restore="source_url= resume= clone= prefault= memory_restore_mode= accept_tsc= net_fds= set= changed_disks="

_chvmm_options="--kernel --initramfs --cmdline --restore --cpus --memory --memory-zone --platform
    --disk --net --rng --serial --console --debug-console --api-socket --event-monitor --end-with
    --seccomp --landlock --landlock-rules --no-shutdown --log-file --verbose --version --help"

_chvmm()
{
    local words cur i

    _chrysalis_words
    if [[ $cur == -* ]]; then
        _chrysalis_reply "$cur" "" $_chvmm_options
        return
    fi
    # The nearest option in front: --disk and its like take several values.
    for ((i = ${#words[@]} - 1; i > 0; i--)); do
        [[ ${words[i]} == --* ]] || continue
        if ((i == ${#words[@]} - 1)) || [[ ${words[i]} == --@(disk|net|memory-zone|landlock-rules) ]]; then
            _chvmm_value "${words[i]}" && return
        fi
        break
    done
    _chrysalis_reply "$cur" "" $_chvmm_options
}

_chctl_commands="ping info counters create boot pause resume power-button reboot nmi shutdown delete
    shutdown-vmm snapshot snapshot-progress snapshot-cancel restore send-migration
    receive-migration migration-progress migration-cancel migration-resolve migration-switchover
    add-disk add-net remove-device resize resize-disk resize-zone"

_chctl_argument()
{
    case $1 in
    help) _chrysalis_reply "$cur" "" $_chctl_commands ;;
    create) _chrysalis_files "$cur" ;;
    snapshot) _chrysalis_reply "$cur" "" store: file:// ;;
    restore) _chrysalis_keys "$cur" $_chrysalis_restore ;;
    send-migration)
        _chrysalis_keys "$cur" destination_url= tls_dir= downtime_ms= timeout_s= \
            timeout_strategy= connections= bandwidth= compression= insecure= local= \
            preserve_source= memory_mode=
        ;;
    receive-migration) _chrysalis_keys "$cur" receiver_url= tls_dir= insecure= accept_tsc= \
        net_fds= memory_size= failure_strategy= memory_mode= ;;
    migration-progress) _chrysalis_reply "$cur" "" --follow --plot ;;
    migration-resolve) _chrysalis_reply "$cur" "" statement= lost= migration= ;;
    add-disk) _chvmm_value --disk ;;
    add-net) _chvmm_value --net ;;
    resize) _chrysalis_reply "$cur" "" --cpus --memory --balloon ;;
    resize-disk) _chrysalis_reply "$cur" "" --disk --size ;;
    resize-zone) _chrysalis_reply "$cur" "" --id --size ;;
    esac
}

_chctl()
{
    local words cur i

    _chrysalis_words
    for ((i = 1; i < ${#words[@]}; i++)); do
        case ${words[i]} in
        --api-socket) ((++i)) ;;
        -*) ;;
        *)
            _chctl_argument "${words[i]}"
            return
            ;;
        esac
    done
    if [[ ${words[-1]} == --api-socket ]]; then
        _chrysalis_files "$cur"
    elif [[ $cur == -* ]]; then
        _chrysalis_reply "$cur" "" --api-socket --help --version
    else
        _chrysalis_reply "$cur" "" help $_chctl_commands
    fi
}

_chsnap_commands="create restore clone list show diff map dump tag rm prune verify export import copy gc stats"

_chsnap_options()
{
    local all="--store --json --color --help"

    case $1 in
    create) echo "--api-socket --mode --track $all" ;;
    restore) echo "--api-socket --paused --memory --set --changed-disks $all" ;;
    clone) echo "--number --dir --name --first --memory --set --changed-disks $all" ;;
    list) echo "--vm --tag --quiet $all" ;;
    show) echo "--state --raw-state $all" ;;
    diff) echo "--runs $all" ;;
    map) echo "--svg $all" ;;
    dump) echo "--elf --raw --output $all" ;;
    export) echo "--output $all" ;;
    import) echo "--input --name --no-name $all" ;;
    copy) echo "--name --no-name $all" ;;
    prune) echo "--keep-last --keep-hourly --keep-daily --keep-weekly --keep-tag --vm --dry-run $all" ;;
    verify) echo "--read-data --repair $all" ;;
    rm) echo "--dry-run $all" ;;
    tag) echo "--add --remove --name --no-name $all" ;;
    gc) echo "--dry-run --no-wait $all" ;;
    stats) echo "$all" ;;
    *) echo "--store --json --color --help --version" ;;
    esac
}

_chsnap()
{
    local words cur command= i

    _chrysalis_words
    for ((i = 1; i < ${#words[@]}; i++)); do
        case ${words[i]} in
        -s | --store | --color) ((++i)) ;;
        -*) ;;
        *)
            command=${words[i]}
            break
            ;;
        esac
    done
    if [[ $cur == -* ]]; then
        _chrysalis_reply "$cur" "" $(_chsnap_options "$command")
    elif [[ ${words[-1]} == --color ]]; then
        _chrysalis_reply "$cur" "" always never auto
    elif [[ -z $command && ${words[-1]} != -@(s|-store) ]]; then
        _chrysalis_reply "$cur" "" help $_chsnap_commands
    elif [[ $command == help ]]; then
        _chrysalis_reply "$cur" "" $_chsnap_commands
    else
        _chrysalis_files "$cur"
    fi
}

complete -F _chvmm chvmm
complete -F _chctl chctl
complete -F _chsnap chsnap
