/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap as people run it: on stores made here, by its output and exit status.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/chsnap_fixture.h"

enum {
    PAGES = 1100,
    STATE_MAX = 65536,
};

static struct fixture fx;
static struct image img_a, img_b;

/* A vCPU as the tests of core keep it, from the golden file; @len bytes. */
static size_t golden_state(uint8_t *state)
{
    FILE *f = fopen(CHRYSALIS_SOURCE_DIR "/tests/golden/state/x86-vcpu-v1.cbor", "rb");
    size_t len = f ? fread(state, 1, STATE_MAX, f) : 0;

    if (f)
        (void)fclose(f);
    return len;
}

static int put(struct store *st, const struct image *img, const char *parent, const char *name,
               const struct store_publish *what, struct err *err)
{
    char id[STORE_DIGEST_HEX + 1];
    struct store_writer *w;
    int rc = image_begin(st, img, parent, name, true, &w, err);

    if (rc < 0)
        return rc;
    rc = store_writer_pages(w, 0, 0, img->pages, img->p, err);
    if (rc < 0) {
        store_writer_abort(w);
        return rc;
    }
    return store_writer_publish(w, what, id, err);
}

static int setup(void **state)
{
    static uint8_t vcpu[STATE_MAX];
    struct store_publish what = {.state = vcpu, .config = "{\"cpus\":{\"boot\":1}}"};
    struct err err = {0};
    struct store *st;
    int rc;

    (void)state;
    what.state_len = golden_state(vcpu);
    fixture_make(&fx);
    img_a = image_make(PAGES, 1);
    img_b = image_copy(&img_a);
    for (uint64_t i = 0; i < 10; i++)
        image_touch(&img_b, 600 + i, 1);
    rc = store_open(fx.path, STORE_CREATE, &st, &err);
    if (rc == 0)
        rc = put(st, &img_a, NULL, "a", &what, &err);
    what.config = "{\"cpus\":{\"boot\":2}}";
    what.state_len = 0; /* no processor */
    if (rc == 0)
        rc = put(st, &img_b, "a", "b", &what, &err);
    store_close(st);
    if (rc < 0)
        print_error("%s\n", err.msg);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(&fx);
    image_free(&img_a);
    image_free(&img_b);
    return 0;
}

static void test_diff_tells_fields_and_memory(void **state)
{
    (void)state;
    assert_int_equal(run(CHSNAP " diff --runs %s a b 2>&1", fx.path), 0);
    assert_says("cpus.boot: 1 -> 2");
    assert_says("memory: ");
    assert_says("10 pages");
    assert_int_equal(run(CHSNAP " diff --json %s a b", fx.path), 0);
    assert_says("\"path\": \"cpus.boot\"");
    assert_says("\"path\": \"vcpu3\"");
    assert_says("\"nodes_read\": 4"); /* two roots, two leaves, of three */
    assert_int_equal(run(CHSNAP " diff %s a a", fx.path), 0);
    assert_says("state: 0 fields differ");
    assert_says("0 pages differ");
    assert_int_equal(run(CHSNAP " diff %s a 2>&1", fx.path), 2);
}

static void test_state_is_shown_field_by_field(void **state)
{
    (void)state;
    assert_int_equal(run(CHSNAP " show --state %s a", fx.path), 0);
    assert_says("\"type\": \"x86-vcpu\"");
    assert_says("\"rip\": ");
}

static void test_map_draws_in_blocks_and_svg(void **state)
{
    (void)state;
    assert_int_equal(run(CHSNAP " map %s b", fx.path), 0);
    assert_says("0x000000100000 ");
    assert_says("a cell is 4.0 KiB");
    assert_says("cccccccccc");
    assert_says("c  changed since the parent: 40.0 KiB");
    assert_int_equal(run(CHSNAP " map --color always %s b", fx.path), 0);
    assert_says("\033[31m\u2588");
    assert_int_equal(run(CHSNAP " map --svg %s b", fx.path), 0);
    assert_says("<svg xmlns=");
    assert_says("</svg>");
    assert_says("#cc3311");
    assert_int_equal(run(CHSNAP " map --json %s b", fx.path), 0);
    assert_says("\"changed\": 10");
}

static void test_a_raw_dump_is_the_memory(void **state)
{
    struct stat st;
    uint8_t *got = calloc(FIXTURE_GPA + PAGES * PAGE_SIZE_4K, 1);
    char path[512];
    FILE *f;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/raw", fx.dir);
    assert_non_null(got);
    assert_int_equal(run(CHSNAP " dump --raw -o %s %s b 2>&1", path, fx.path), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, FIXTURE_GPA + PAGES * PAGE_SIZE_4K);
    assert_true(st.st_blocks * 512 < st.st_size); /* zeroes are holes */
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, (size_t)st.st_size, f), st.st_size);
    (void)fclose(f);
    assert_memory_equal(got + FIXTURE_GPA, img_b.p, PAGES * PAGE_SIZE_4K);
    /* A pipe gets the same bytes; a file that is there is left alone. */
    assert_int_equal(run(CHSNAP " dump --raw %s b | cmp - %s 2>&1", fx.path, path), 0);
    assert_int_equal(run(CHSNAP " dump --raw -o %s %s a 2>&1", path, fx.path), 1);
    assert_says("File exists");
    assert_int_equal(run(CHSNAP " dump --raw %s b | cmp - %s 2>&1", fx.path, path), 0);
    free(got);
}

/* The number behind a word of @output. */
static uint64_t number_behind(const char *word)
{
    const char *at = strstr(output, word);

    assert_non_null(at);
    return strtoull(at + strlen(word), NULL, 0);
}

static void test_a_core_file_has_registers_and_memory(void **state)
{
    uint64_t rip, r15, word, page;
    char core[512];

    (void)state;
    (void)snprintf(core, sizeof(core), "%s/core", fx.dir);
    assert_int_equal(run(CHSNAP " dump --elf -o %s %s a 2>&1", core, fx.path), 0);
    assert_int_equal(run(CHSNAP " show --state %s a", fx.path), 0);
    rip = number_behind("\"rip\": ");
    r15 = number_behind("\"r15\": ");

    assert_int_equal(run("LC_ALL=C readelf -lnW %s 2>&1", core), 0);
    assert_says("CORE (Core file)");
    assert_says("NT_PRSTATUS");
    assert_says("0x0000000000100000 0x0000000000100000 0x44c000");
    /* crash takes segments with an alignment for another form, and ends badly. */
    assert_says("0x44c000 0x44c000 RWE 0\n");
    if (run("command -v gdb") != 0)
        skip();
    for (page = 0; page < PAGES && !img_a.p[page * PAGE_SIZE_4K]; page++)
        ;
    memcpy(&word, img_a.p + page * PAGE_SIZE_4K, sizeof(word));
    assert_int_equal(run("gdb -nx -batch -core %s -ex 'printf \"rip=%%lu r15=%%lu\\n\",$rip,$r15' "
                         "-ex 'printf \"word=%%lu\\n\",*(unsigned long long*)%llu' 2>&1",
                         core, (unsigned long long)(FIXTURE_GPA + page * PAGE_SIZE_4K)),
                     0);
    assert_true(number_behind("rip=") == rip);
    assert_true(number_behind("r15=") == r15);
    assert_true(number_behind("word=") == word);
}

static void test_a_core_file_needs_a_processor(void **state)
{
    char core[512];

    (void)state;
    (void)snprintf(core, sizeof(core), "%s/none", fx.dir);
    assert_int_equal(run(CHSNAP " dump --elf -o %s %s b 2>&1", core, fx.path), 1);
    assert_says("has no processor");
    assert_int_not_equal(access(core, F_OK), 0); /* and nothing is left */
    assert_int_equal(run(CHSNAP " dump -o %s %s b 2>&1", core, fx.path), 2);
}

static void test_prune_removes_what_no_rule_keeps(void **state)
{
    struct fixture copy;

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_int_equal(run(CHSNAP " prune %s 2>&1", copy.path), 2);
    assert_int_equal(run(CHSNAP " prune --keep-last 0 %s 2>&1", copy.path), 2);
    assert_int_equal(run(CHSNAP " prune --dry-run --keep-last 1 %s", copy.path), 0);
    assert_says("would be removed");
    assert_int_equal(run(CHSNAP " list -q %s | wc -l", copy.path), 0);
    assert_says("2");
    assert_int_equal(run(CHSNAP " tag --add gold %s a", copy.path), 0);
    assert_int_equal(run(CHSNAP " prune --json --keep-last 1 --keep-tag gold %s", copy.path), 0);
    assert_says("\"removed\": [\n  ]");
    assert_int_equal(run(CHSNAP " prune --keep-last 1 %s", copy.path), 0);
    assert_says("removed");
    assert_int_equal(run(CHSNAP " show %s b", copy.path), 0);
    assert_int_equal(run(CHSNAP " show %s a 2>&1", copy.path), 1);
    assert_int_equal(run(CHSNAP " verify -r %s", copy.path), 0);
    fixture_remove(&copy);
}

/* For programs: each reason by itself. */
static void test_prune_gives_its_reasons_one_by_one(void **state)
{
    (void)state;
    assert_int_equal(
        run(CHSNAP " prune -n --json --keep-last 2 --keep-daily 1 %s | tr -d ' \\n'", fx.path), 0);
    assert_says("\"reasons\":[\"last\",\"daily\"]");
    assert_says("\"reasons\":[\"last\"]");
}

static void test_options_of_every_command_stand_before_it_too(void **state)
{
    (void)state;
    assert_int_equal(run(CHSNAP " --color always list %s", fx.path), 0);
    assert_says("\033[1m");
    assert_int_equal(run(CHSNAP " --color always list --color never %s", fx.path), 0);
    assert_null(strchr(output, '\033'));
    assert_int_equal(run(CHSNAP " --color sometimes list %s 2>&1", fx.path), 2);
    assert_says("none of always, never, auto");
}

/* What chsnap says on a terminal so wide, in @output; 0 columns: it does not tell, COLUMNS does. */
static void run_on_terminal(unsigned short columns, const char *env)
{
    const struct winsize size = {.ws_row = 24, .ws_col = columns};
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), other;
    char name[64];
    size_t len = 0;
    pid_t pid;

    assert_true(terminal >= 0);
    assert_int_equal(grantpt(terminal) | unlockpt(terminal), 0);
    assert_int_equal(ptsname_r(terminal, name, sizeof(name)), 0);
    other = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_int_equal(ioctl(other, TIOCSWINSZ, &size), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)setenv("COLUMNS", env, 1);
        (void)dup2(other, STDERR_FILENO);
        (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        (void)execl(CHSNAP, CHSNAP, "verify", "-r", fx.path, (char *)NULL);
        _exit(127);
    }
    (void)close(other);
    for (ssize_t n = 1; n > 0; len += n > 0 ? (size_t)n : 0)
        n = read(terminal, output + len, sizeof(output) - 1 - len);
    output[len] = 0;
    (void)close(terminal);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* A line that is wider goes on in the next one, and is never wiped off whole. */
static void test_progress_has_room_on_the_terminal(void **state)
{
    static const struct {
        unsigned short columns;
        const char *env;
        size_t width;
    } terminals[] = {
        {200, "10", 200},
        {80,  "",   80 },
        {30,  "",   30 },
        {12,  "",   12 },
        {0,   "30", 30 },
        {0,   "",   80 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(terminals); i++) {
        size_t widest = 0;

        run_on_terminal(terminals[i].columns, terminals[i].env);
        for (char *p = strstr(output, "\r\033[K"); p; p = strstr(p, "\r\033[K")) {
            size_t len;

            p += strlen("\r\033[K");
            len = strcspn(p, "\r");
            widest = len > widest ? len : widest;
        }
        assert_true(widest >= strlen("verifying")); /* there was one */
        if (terminals[i].columns == 200) {
            assert_says("iB/s");
            assert_says(" s left");
        }
        assert_true(widest < terminals[i].width);
    }
    /* None where there is no terminal. */
    assert_int_equal(run(CHSNAP " verify -r %s 2>&1 >/dev/null", fx.path), 0);
    assert_string_equal(output, "");
}

static void damage_snapshot_a(const char *store)
{
    assert_int_equal(index_change(store, "UPDATE snapshots SET record = x'00' WHERE name = 'a'"),
                     1);
}

/* One snapshot that is damaged keeps nobody from copying the others. */
static void test_a_copy_goes_on_past_what_is_damaged(void **state)
{
    struct fixture copy, other;

    (void)state;
    fixture_make(&copy);
    fixture_make(&other);
    tree_copy(fx.path, copy.path);
    damage_snapshot_a(copy.path);
    assert_int_equal(run(CHSNAP " copy %s %s 2>&1", copy.path, other.path), 1);
    assert_says(": record: does not match the id\n");
    assert_says("copied: ");
    assert_says("1 of 2 snapshots could not be copied\n");
    assert_int_equal(run(CHSNAP " show %s b", other.path), 0);
    assert_int_equal(run(CHSNAP " copy --json %s %s 2>/dev/null", copy.path, other.path), 1);
    assert_says("\"error\": ");
    fixture_remove(&copy);
    fixture_remove(&other);
}

/* Nor from being looked at. */
static void test_a_map_goes_on_past_what_is_damaged(void **state)
{
    struct fixture copy;

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_int_equal(run(CHSNAP " map %s b 2>&1 >/dev/null", copy.path), 0);
    assert_string_equal(output, "");
    damage_snapshot_a(copy.path);
    assert_int_equal(run(CHSNAP " map %s b 2>&1 >/dev/null", copy.path), 0);
    assert_says("other snapshots that are damaged: 1;");
    assert_int_equal(run(CHSNAP " map --json %s b 2>/dev/null", copy.path), 0);
    assert_says("\"unread\": 1");
    assert_int_equal(run(CHSNAP " map %s a 2>&1", copy.path), 1);
    fixture_remove(&copy);
}

static void test_an_empty_name_is_no_name(void **state)
{
    struct fixture copy;

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_int_equal(run(CHSNAP " tag -n '' %s a 2>&1", copy.path), 2);
    assert_says("--no-name");
    assert_int_equal(run(CHSNAP " show %s a", copy.path), 0);
    assert_int_equal(run(CHSNAP " tag --no-name %s a", copy.path), 0);
    assert_int_equal(run(CHSNAP " show %s a 2>&1", copy.path), 1);
    fixture_remove(&copy);
}

/* What is left over on a command line is a mistake, not to be passed over. */
static void test_nothing_on_the_command_line_is_passed_over(void **state)
{
    static const char *const only_store[] = {"list",  "stats",  "verify",
                                             "gc -n", "import", "prune -n --keep-last 1"};
    struct fixture other;

    (void)state;
    fixture_make(&other);
    for (size_t i = 0; i < ARRAY_LEN(only_store); i++) {
        assert_int_equal(run(CHSNAP " %s store:%s#a 2>&1", only_store[i], fx.path), 2);
        assert_says("takes only a store");
    }
    assert_int_equal(run(CHSNAP " diff store:%s#a b a 2>&1", fx.path), 2);
    assert_int_equal(run(CHSNAP " copy %s store:%s#c a 2>&1", fx.path, other.path), 2);
    assert_int_equal(run(CHSNAP " create -a none %s x y 2>&1", fx.path), 2);
    assert_int_equal(run(CHSNAP " help nosuch 2>&1"), 2);
    assert_int_equal(run(CHSNAP " help list diff 2>&1"), 2);
    /* All that are named are copied. */
    assert_int_equal(run(CHSNAP " copy store:%s#a %s b", fx.path, other.path), 0);
    assert_int_equal(run(CHSNAP " list -q %s | wc -l", other.path), 0);
    assert_says("2");
    fixture_remove(&other);
}

/* A name may have a colon, which makes no store of it. */
static void test_a_name_with_a_colon_is_no_store(void **state)
{
    struct fixture copy;

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_int_equal(run(CHSNAP " tag --name vm:1 %s a", copy.path), 0);
    assert_int_equal(run("CHSNAP_STORE=%s " CHSNAP " show vm:1 2>&1", copy.path), 0);
    assert_says("vm:1");
    assert_int_equal(run("CHSNAP_STORE=none " CHSNAP " show store:%s#vm:1 2>&1", copy.path), 0);
    fixture_remove(&copy);
}

/* What fails leaves no store where there was none. */
static void test_what_comes_to_nothing_makes_no_store(void **state)
{
    static const struct {
        const char *line, *says; /* for a shell */
        int status;
    } all[] = {
        {"import -i $new/none $new",          "none: No such file or directory", 1},
        {"import $new </dev/null",            "there is no stream",              1},
        {"import store:$new#x",               "takes only a store",              2},
        {"copy $old $new none",               "no snapshot \"none\"",            1},
        {"clone -d $new $old none",           "no snapshot \"none\"",            1},
        {"clone -d $new $old.none a",         "No such file or directory",       1},
        {"clone -d $new --name '' $old a",    "is not the name of a file",       2},
        {"clone -d $new --name a/b $old a",   "is not the name of a file",       2},
        {"clone -d $new --name '{x}' $old a", "braces hold a number",            2},
        {"create -a none $new x",             "none: No such file or directory", 1},
        {"create -a none $new",               "none: No such file or directory", 1},
        {"create -a none $new a/b",           "cannot be a name",                2},
    };
    struct fixture other;

    (void)state;
    fixture_make(&other);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        for (int there = 0; there < 2; there++) {
            if (there)
                assert_int_equal(mkdir(other.path, 0700), 0);
            assert_int_equal(run("new=%s; old=%s; " CHSNAP " %s 2>&1", other.path, fx.path,
                                 all[i].line),
                             all[i].status);
            assert_says(all[i].says);
            if (there)
                assert_int_equal(rmdir(other.path), 0); /* and is empty */
            else
                assert_int_not_equal(access(other.path, F_OK), 0);
        }
    }
    fixture_remove(&other);
}

/* For programs: what was done before a failure is told too. */
static void test_an_import_that_fails_tells_what_came_before(void **state)
{
    struct fixture other;

    (void)state;
    fixture_make(&other);
    assert_int_equal(run("(" CHSNAP " export %s a 2>/dev/null; echo junk) | " CHSNAP
                         " import --json %s 2>&1",
                         fx.path, other.path),
                     1);
    assert_says("cut off");
    assert_says("\"done\": true");
    fixture_remove(&other);
}

/* The answer of a VM that runs already is not taken for the clone's, nor its log written over. */
static void test_a_clone_keeps_off_a_socket_that_is_answered(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct fixture other;
    char log[512];

    (void)state;
    fixture_make(&other);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/clone-0.sock", other.dir);
    (void)snprintf(log, sizeof(log), "%s/clone-0.log", other.dir);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(run("timeout 20 " CHSNAP " clone --dir %s %s a 2>&1", other.dir, fx.path), 1);
    assert_says("a VM has it already");
    assert_int_not_equal(access(log, F_OK), 0);
    (void)close(fd);
    fixture_remove(&other);
}

/* ---- texts from anywhere ---- */

/* A copy of the store with one more snapshot, "hostile", whose configuration commands terminals. */
static void hostile_make(struct fixture *copy)
{
    static const struct store_publish what = {
        .config = "{\"cpus\":\"\302\23331m\342\200\256\177\\n\\u001b[2J\"}"};
    struct err err = {0};
    struct store *st;

    fixture_make(copy);
    tree_copy(fx.path, copy->path);
    st = fixture_open(copy);
    assert_ok(put(st, &img_b, "b", "hostile", &what, &err), &err);
    store_close(st);
}

static void assert_no_commands(void)
{
    assert_null(strchr(output, '\033'));
    assert_null(strchr(output, '\x7f'));
    assert_null(strstr(output, "\xc2\x9b"));     /* CSI, to a terminal of UTF-8 */
    assert_null(strstr(output, "\xe2\x80\xae")); /* what follows from right to left */
}

static void test_a_text_commands_no_terminal(void **state)
{
    struct fixture copy;

    (void)state;
    hostile_make(&copy);
    for (unsigned json = 0; json < 2; json++) {
        assert_int_equal(run(CHSNAP " show %s %s hostile", json ? "-j" : "", copy.path), 0);
        assert_no_commands();
        assert_says("\"\\u009b31m\\u202e\\u007f\\n\\u001b[2J\""); /* which is the same text */
        assert_int_equal(run(CHSNAP " diff %s %s b hostile", json ? "-j" : "", copy.path), 0);
        assert_no_commands();
    }
    /* Nor does what was said on the command line, or what is no UTF-8. */
    assert_int_equal(
        run(CHSNAP " show %s \"$(printf '\\302\\2331\\2332\\t\\303\\244')\" 2>&1", copy.path), 1);
    assert_string_equal(output, "chsnap: error: no snapshot \"?1?2?\xc3\xa4\"\n");
    assert_int_equal(run(CHSNAP " \"$(printf '\\302\\233')\" 2>&1"), 2);
    assert_no_commands();
    fixture_remove(&copy);
}

/* What root adds to somebody else's store he can read. */
static void test_a_store_stays_its_owner_s(void **state)
{
    struct fixture copy;

    (void)state;
    if (geteuid() != 0)
        skip();
    fixture_make(&copy);
    assert_int_equal(run("chmod 755 %s && cp -r %s %s && chown -R 4321:1234 %s", copy.dir, fx.path,
                         copy.path, copy.path),
                     0);
    assert_int_equal(run("rm -f %s/reserve", copy.path), 0); /* the next writer makes another */
    assert_int_equal(run(CHSNAP " export %s a 2>&1 >%s/stream && " CHSNAP " rm %s a b && " CHSNAP
                                " gc %s && " CHSNAP " import -i %s/stream %s",
                         fx.path, copy.dir, copy.path, copy.path, copy.dir, copy.path),
                     0);
    assert_int_equal(run("find %s ! -user 4321 -o ! -group 1234", copy.path), 0);
    assert_string_equal(output, "");
    assert_int_equal(run("setpriv --reuid 4321 --regid 1234 --clear-groups " CHSNAP
                         " verify -r %s 2>&1",
                         copy.path),
                     0);
    fixture_remove(&copy);
}

/* ---- command lines ---- */

static void test_what_contradicts_itself_is_refused(void **state)
{
    static const char *const all[] = {
        "show -S -r $s a >/dev/null", /* one or the other */
        "show -r -j $s a >/dev/null",
        "map --svg -j $s a",
        "dump -e -r $s a >/dev/null",
        "export -j $s a >/dev/null",
        "tag -n x --no-name $s a",
        "tag -n x -n y $s a",
        "import --name x --no-name $s </dev/null",
        "import --name '' $s </dev/null",
        "copy --name x $s $s.other a b", /* one name for two */
        "copy --name x $s $s.other",
        "copy --name 'x y' $s $s.other a",
        "prune -n --keep-tag '' $s", /* would keep nothing */
        "prune -n --keep-tag 'a b' $s",
        "prune -n --keep-last +1 $s",
        "prune -n --keep-last ' 1' $s",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        int rc = run("s=%s; { " CHSNAP " %s; } 2>&1", fx.path, all[i]);

        if (rc != 2)
            print_error("%s: %d: %s\n", all[i], rc, output);
        assert_int_equal(rc, 2);
        assert_says("--help");
    }
    assert_int_equal(run("ls %s.other 2>&1", fx.path), 2);
    assert_int_equal(run(CHSNAP " show %s x 2>&1", fx.path), 1);
}

/* Every change or none: what failed need not be looked for. */
static void test_a_tag_that_cannot_be_leaves_all_as_it_was(void **state)
{
    struct fixture copy;

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_int_equal(run(CHSNAP " tag -a t -n new -r none %s a 2>&1", copy.path), 1);
    assert_says("it has no tag \"none\"");
    assert_int_equal(run(CHSNAP " tag -a t -a 'u v' %s a 2>&1", copy.path), 1);
    assert_int_equal(run(CHSNAP " tag -a t -n b %s a 2>&1", copy.path), 1);
    assert_says("another snapshot has the name \"b\"");
    assert_int_equal(run(CHSNAP " list -q -t t %s", copy.path), 0);
    assert_string_equal(output, "");
    assert_int_equal(run(CHSNAP " tag -a t -a u -r t -n new %s a 2>&1", copy.path), 0);
    assert_int_equal(run(CHSNAP " show %s new", copy.path), 0);
    assert_says("tag        u\n");
    assert_null(strstr(output, "tag        t\n"));
    fixture_remove(&copy);
}

/* One that is named twice, and a tag that several have, mean what they meant at first. */
static void test_a_removal_does_what_its_dry_run_says(void **state)
{
    struct fixture copy;
    char would[512];

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    for (const char *name = "ab"; *name; name++)
        assert_int_equal(run(CHSNAP " tag -a both %s %c", copy.path, *name), 0);
    assert_int_equal(run(CHSNAP " rm -n %s both b both | cut -d' ' -f3", copy.path), 0);
    (void)snprintf(would, sizeof(would), "%s", output);
    assert_int_equal(strlen(would), STORE_ID_SHORT + 1);
    assert_int_equal(run(CHSNAP " rm %s both b both | cut -d' ' -f2", copy.path), 0);
    assert_string_equal(output, would);
    assert_int_equal(run(CHSNAP " show %s a", copy.path), 0);
    /* What is not there keeps nothing else. */
    assert_int_equal(run(CHSNAP " rm -j %s none a 2>/dev/null | wc -l", copy.path), 0);
    assert_says("3\n");
    assert_int_equal(run(CHSNAP " list -q %s", copy.path), 0);
    assert_string_equal(output, "");
    fixture_remove(&copy);
}

static void test_a_dry_run_finds_what_is_in_use(void **state)
{
    struct store_snapshot *snap;
    struct fixture copy;
    struct err err = {0};
    struct store *st;
    char real[512];

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_ok(store_open(copy.path, STORE_RDONLY, &st, &err), &err);
    assert_ok(store_snapshot_open(st, "a", &snap, &err), &err);
    assert_int_equal(run(CHSNAP " rm -n %s a 2>&1", copy.path), 1);
    (void)snprintf(real, sizeof(real), "%s", output);
    assert_int_equal(run(CHSNAP " rm %s a 2>&1", copy.path), 1);
    assert_string_equal(output, real);
    assert_says("is in use");
    assert_int_equal(run(CHSNAP " prune -n --keep-last 1 %s 2>&1", copy.path), 1);
    (void)snprintf(real, sizeof(real), "%s", output);
    assert_int_equal(run(CHSNAP " prune --keep-last 1 %s 2>&1", copy.path), 1);
    assert_string_equal(output, real);
    assert_says("is in use");
    store_snapshot_close(snap);
    store_close(st);
    assert_int_equal(run(CHSNAP " prune -n --keep-last 1 %s", copy.path), 0);
    assert_says("would be removed");
    assert_int_equal(run(CHSNAP " rm -n %s a", copy.path), 0);
    fixture_remove(&copy);
}

/* ---- outputs ---- */

static void test_json_is_json_whatever_else_is_asked(void **state)
{
    struct fixture copy;

    (void)state;
    fixture_make(&copy);
    tree_copy(fx.path, copy.path);
    assert_int_equal(run(CHSNAP " list -q -j %s | tr -d ' \n'", copy.path), 0);
    assert_int_equal(strlen(output), 2 * (STORE_DIGEST_HEX + 2) + 3);
    assert_memory_equal(output, "[\"", 2);
    /* Others are told of beside one that is damaged, as in the table. */
    damage_snapshot_a(copy.path);
    assert_int_equal(run(CHSNAP " list -j %s 2>/dev/null", copy.path), 1);
    assert_says("\"name\": \"b\"");
    assert_int_equal(run(CHSNAP " list %s 2>/dev/null", copy.path), 1);
    assert_says("  b  ");
    /* A stream that goes to a file leaves standard output free. */
    assert_int_equal(run(CHSNAP " export -j -o %s/stream %s b", copy.dir, copy.path), 0);
    assert_says("\"done\": true");
    assert_int_equal(run(CHSNAP " export -j -o %s/none %s b a 2>/dev/null", copy.dir, copy.path),
                     1);
    assert_string_equal(output, ""); /* it was not made */
    fixture_remove(&copy);
}

/* Long outputs, whose end goes well, and short ones. */
static void test_an_output_that_is_full_is_a_failure(void **state)
{
    static const char *const all[] = {
        "--help",       "--version",      "help show",       "list $s",
        "list -j $s",   "list -q $s",     "show $s a",       "show -j $s a",
        "show -S $s a", "show -r $s a",   "diff $s a b",     "diff -r -j $s a b",
        "map $s b",     "map --svg $s b", "map -j $s b",     "stats $s",
        "verify $s",    "verify -j $s",   "gc -n $s",        "prune -n --keep-last 1 $s",
        "rm -n $s a",   "rm -n -j $s a",  "dump --raw $s a", "export $s a",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        int rc = run("s=%s; " CHSNAP " %s 2>&1 >/dev/full", fx.path, all[i]);

        if (rc != 1)
            print_error("%s: %d: %s\n", all[i], rc, output);
        assert_int_equal(rc, 1);
        assert_says("No space left on device");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_diff_tells_fields_and_memory),
        cmocka_unit_test(test_state_is_shown_field_by_field),
        cmocka_unit_test(test_map_draws_in_blocks_and_svg),
        cmocka_unit_test(test_a_raw_dump_is_the_memory),
        cmocka_unit_test(test_a_core_file_has_registers_and_memory),
        cmocka_unit_test(test_a_core_file_needs_a_processor),
        cmocka_unit_test(test_prune_removes_what_no_rule_keeps),
        cmocka_unit_test(test_prune_gives_its_reasons_one_by_one),
        cmocka_unit_test(test_options_of_every_command_stand_before_it_too),
        cmocka_unit_test(test_progress_has_room_on_the_terminal),
        cmocka_unit_test(test_a_copy_goes_on_past_what_is_damaged),
        cmocka_unit_test(test_a_map_goes_on_past_what_is_damaged),
        cmocka_unit_test(test_an_empty_name_is_no_name),
        cmocka_unit_test(test_nothing_on_the_command_line_is_passed_over),
        cmocka_unit_test(test_a_name_with_a_colon_is_no_store),
        cmocka_unit_test(test_what_comes_to_nothing_makes_no_store),
        cmocka_unit_test(test_an_import_that_fails_tells_what_came_before),
        cmocka_unit_test(test_a_clone_keeps_off_a_socket_that_is_answered),
        cmocka_unit_test(test_a_text_commands_no_terminal),
        cmocka_unit_test(test_a_store_stays_its_owner_s),
        cmocka_unit_test(test_what_contradicts_itself_is_refused),
        cmocka_unit_test(test_a_tag_that_cannot_be_leaves_all_as_it_was),
        cmocka_unit_test(test_a_removal_does_what_its_dry_run_says),
        cmocka_unit_test(test_a_dry_run_finds_what_is_in_use),
        cmocka_unit_test(test_json_is_json_whatever_else_is_asked),
        cmocka_unit_test(test_an_output_that_is_full_is_a_failure),
    };

    return cmocka_run_group_tests_name("chsnap", tests, setup, teardown);
}
