/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chsnap: the store on the command line.
 *
 * main.c has the table of subcommands; a subcommand is one function and its
 * help text, declared at the end of this file.
 */
#ifndef TOOLS_CHSNAP_CHSNAP_H
#define TOOLS_CHSNAP_CHSNAP_H

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>

#include "store/store.h"
#include "store/store_url.h"

struct json_object;

/* What the program ends with. */
enum chsnap_exit {
    CHSNAP_OK = 0,
    CHSNAP_FAILED = 1, /* it was tried and did not work, or damage was found */
    CHSNAP_USAGE = 2,
};

enum {
    CHSNAP_OPTIONS_MAX = 24,
    CHSNAP_TEXT_MAX = 40,
};

/* One run of the program. */
struct chsnap {
    const struct chsnap_command *command;
    const char *store_text; /* --store or CHSNAP_STORE; NULL if not given */
    bool store_from_env;
    bool json;
    bool colour;          /* standard output is a terminal and nobody objects */
    bool colour_err;      /* the same of standard error */
    bool progress;        /* standard error is a terminal */
    struct store_url url; /* of the store that is open */
    struct store *st;     /* NULL until chsnap_open() */
    char title[CHSNAP_TEXT_MAX];
};

struct chsnap_command {
    const char *name;
    const char *summary;                                 /* one phrase */
    const char *usage;                                   /* what follows the name */
    const char *help;                                    /* paragraphs and options */
    int (*run)(struct chsnap *c, int argc, char **argv); /* enum chsnap_exit */
};

/* ---- chsnap_args.c ---- */

/**
 * chsnap_getopt() - the next option of a subcommand; handles those all have.
 * @shorts: as getopt(), without those all have.
 * @longs:  as getopt_long(), ended by a zeroed one; at most CHSNAP_OPTIONS_MAX.
 *
 * Return: the option's value; -1 at the end; '?' after it has complained; 'h'
 * after it has printed the help.
 * Threads: main.
 */
int chsnap_getopt(struct chsnap *c, int argc, char **argv, const char *shorts,
                  const struct option *longs);

/**
 * chsnap_take_color() - the value of --color.
 *
 * Return: whether it is one; if not, after a complaint.
 * Threads: main.
 */
bool chsnap_take_color(struct chsnap *c, const char *when);

/**
 * chsnap_option_end() - what a subcommand does with '?' and 'h'.
 *
 * Return: the exit code.
 * Threads: main.
 */
int chsnap_option_end(int opt);

/**
 * chsnap_take_store() - find out which store is meant and step over its argument.
 * @args: the arguments left; the first is the store unless that is known already.
 *
 * Return: CHSNAP_OK and c->url, or CHSNAP_USAGE after a complaint.
 * Threads: main.
 */
CHECKED int chsnap_take_store(struct chsnap *c, char ***args);

/**
 * chsnap_open() - chsnap_take_store(), and open it.
 * @flags: enum store_open_flags.
 *
 * Return: CHSNAP_OK, or the exit code after it has complained.
 * Threads: main.
 */
CHECKED int chsnap_open(struct chsnap *c, unsigned flags, char ***args);

/**
 * chsnap_only_store() - nothing but a store was named.
 * @args: arguments left.
 *
 * Return: CHSNAP_OK; or CHSNAP_USAGE after a complaint.
 * Threads: main.
 */
CHECKED int chsnap_only_store(const struct chsnap *c, char **args);

/**
 * chsnap_one_snapshot() - the one snapshot that is meant.
 * @args: arguments left.
 *
 * It is in the store's URL, or the only argument.
 * Return: CHSNAP_OK and *@ret_ref, borrowed; or CHSNAP_USAGE after a complaint.
 * Threads: main.
 */
CHECKED int chsnap_one_snapshot(struct chsnap *c, char **args, const char **ret_ref);

/**
 * chsnap_usage_error() - complain about the command line.
 *
 * Return: CHSNAP_USAGE.
 * Threads: main.
 */
int chsnap_usage_error(const struct chsnap *c, const char *fmt, ...) PRINTF(2, 3);

/**
 * chsnap_print_help() - the help of a subcommand, on standard output.
 *
 * Threads: main.
 */
void chsnap_print_help(const struct chsnap *c);

/* ---- chsnap_out.c ---- */

enum chsnap_paint {
    PAINT_BOLD,
    PAINT_DIM,
    PAINT_RED,
    PAINT_YELLOW,
    PAINT_GREEN,
    PAINT_OFF,
};

enum {
    CHSNAP_COLUMNS_MAX = 12,
};

/* A table whose columns are as wide as what is in them. */
struct chsnap_table {
    unsigned nr_columns;
    const char *titles[CHSNAP_COLUMNS_MAX];
    bool right[CHSNAP_COLUMNS_MAX]; /* aligned to the right */
    size_t nr_cells, cap_cells;
    char **cells;
};

/**
 * chsnap_error() - one line on standard error: "chsnap: error: ...".
 *
 * Return: CHSNAP_FAILED.
 * Threads: main.
 */
int chsnap_error(const struct chsnap *c, const char *fmt, ...) PRINTF(2, 3);

/**
 * chsnap_put_text() - print a text that may come from anywhere, controls as '?'.
 *
 * Threads: main.
 */
void chsnap_put_text(FILE *f, const char *text);

/**
 * chsnap_put_json_text() - print JSON on standard output, controls in its strings as \uXXXX.
 * @text: one value, as json-c writes it.
 *
 * Threads: main.
 */
void chsnap_put_json_text(const char *text);

/**
 * chsnap_out_is_good() - whether all that was printed has come to where it goes.
 *
 * Return: true if so; else the cause may be in errno.
 * Threads: main.
 */
bool chsnap_out_is_good(void);

/**
 * chsnap_paint() - the escape sequence of a colour, or nothing.
 *
 * Return: a static text.
 * Threads: any.
 */
const char *chsnap_paint(const struct chsnap *c, enum chsnap_paint paint);

/**
 * chsnap_cell() - add a cell to a table, row by row.
 *
 * Threads: main.
 */
void chsnap_cell(struct chsnap_table *t, const char *fmt, ...) PRINTF(2, 3);

/**
 * chsnap_table_print() - print a table and free its cells.
 *
 * Threads: main.
 */
void chsnap_table_print(const struct chsnap *c, struct chsnap_table *t);

/**
 * chsnap_table_drop() - free the cells of a table that is not printed.
 *
 * Threads: main.
 */
void chsnap_table_drop(struct chsnap_table *t);

/**
 * chsnap_size() - a number of bytes for people: "1.5 GiB".
 * @buf: CHSNAP_TEXT_MAX bytes.
 *
 * Return: @buf.
 * Threads: any.
 */
const char *chsnap_size(uint64_t bytes, char *buf);

/**
 * chsnap_time() - a time for people, in the local zone: "2026-11-22 19:17:26".
 * @buf: CHSNAP_TEXT_MAX bytes.
 *
 * Return: @buf.
 * Threads: main.
 */
const char *chsnap_time(uint64_t time_ns, char *buf);

/**
 * chsnap_time_json() - a time for programs: "2026-11-22T18:17:26.123456789Z".
 * @buf: CHSNAP_TEXT_MAX bytes.
 *
 * Return: @buf.
 * Threads: any.
 */
const char *chsnap_time_json(uint64_t time_ns, char *buf);

/**
 * chsnap_put_json() - print a JSON value and free it.
 * @obj: taken.
 *
 * Return: CHSNAP_OK, or CHSNAP_FAILED if standard output takes no more.
 * Threads: main.
 */
int chsnap_put_json(struct chsnap *c, struct json_object *obj);

/* One line on the terminal that counts up. */
struct chsnap_progress {
    bool on;
    const char *what;
    const char *unit; /* of what is counted, in the plural; NULL: bytes */
    uint64_t start_ns, shown_ns;
};

/**
 * chsnap_progress_start() - begin; shows nothing unless standard error is a terminal.
 *
 * Threads: main.
 */
void chsnap_progress_start(const struct chsnap *c, struct chsnap_progress *p, const char *what);

/**
 * chsnap_progress_phase() - from here on it is something else that is counted.
 * @what: borrowed; nothing happens if it is what is counted already.
 *
 * Threads: one at a time.
 */
void chsnap_progress_phase(struct chsnap_progress *p, const char *what);

/**
 * chsnap_progress_step() - show how far it is, at most ten times a second.
 * @done, @total: bytes, or of @p->unit; @total may be 0 if it is not known.
 *
 * Never wider than the terminal, without what has no room.
 * Threads: one at a time.
 */
void chsnap_progress_step(struct chsnap_progress *p, uint64_t done, uint64_t total);

/**
 * chsnap_progress_clear() - wipe the line off, to print another or to end.
 *
 * Threads: one at a time.
 */
void chsnap_progress_clear(struct chsnap_progress *p);

/**
 * chsnap_call() - one request to a VM's API.
 * @body:     JSON; NULL for none.
 * @ret_body: the answer, owned by the caller; NULL if it does not matter.
 *
 * Return: 0; -EPROTO with the answer's text if it is a refusal; the connection's errno.
 * Threads: any.
 */
CHECKED int chsnap_call(const char *socket_path, const char *method, const char *path,
                        const char *body, char **ret_body, struct err *err);

/* ---- chsnap_stop.c ---- */

/**
 * chsnap_stop_state() - from here on a signal ends the program in order, and says this.
 * @fmt: how things are then, one phrase; takes the place of what was to be said.
 *
 * Until it is called signals do what they do to any program.
 * Threads: main.
 */
void chsnap_stop_state(const struct chsnap *c, const char *fmt, ...) PRINTF(2, 3);

/**
 * chsnap_stop_removing() - chsnap_stop_state() before the next of @total snapshots is removed.
 *
 * Threads: main.
 */
void chsnap_stop_removing(const struct chsnap *c, uint64_t done, uint64_t total);

/* Undoes what would be left half-done, well within a second; may say how things are then. */
typedef void chsnap_stop_fn(void *arg, char *state, size_t cap);

/**
 * chsnap_stop_undo() - what is to be done when a signal ends the program.
 * @undo: in a thread of its own, with the lock of chsnap_stop_hold(); NULL for nothing.
 * @arg:  outlives the program, or the next call.
 *
 * Threads: main.
 */
void chsnap_stop_undo(chsnap_stop_fn *undo, void *arg);

/**
 * chsnap_stop_done_locked() - it is whole: there is nothing to undo any more.
 * @state: as of chsnap_stop_state().
 *
 * Threads: who has called chsnap_stop_hold().
 */
void chsnap_stop_done_locked(const char *state);

/**
 * chsnap_stop_file_locked() - a file that is to be removed then.
 * @temp: borrowed until the next call; NULL for none any more.
 * @name: what it was to become, for what is said then: that it was not made, or without @temp
 *        that it is whole; NULL leaves that as it is.
 *
 * Threads: who has called chsnap_stop_hold().
 */
void chsnap_stop_file_locked(const char *temp, const char *name);

/**
 * chsnap_stop_mask_before() - the signals that a process started from here is to have blocked.
 *
 * Threads: main.
 */
void chsnap_stop_mask_before(sigset_t *ret);

/**
 * chsnap_stop_hold() - begin a step that must be whole; a signal waits for chsnap_stop_release().
 *
 * Does not return if a signal was first.
 * Threads: main.
 */
void chsnap_stop_hold(void);

/**
 * chsnap_stop_hold_output() - as chsnap_stop_hold(), for what is printed whole.
 *
 * A reader that takes nothing is waited for a moment only.
 * Threads: main.
 */
void chsnap_stop_hold_output(void);

/**
 * chsnap_stop_release() - end such a step.
 *
 * Does not return if a signal came meanwhile.
 * Threads: main.
 */
void chsnap_stop_release(void);

/* ---- chsnap_file.c ---- */

/* A new file, or standard output. */
struct chsnap_file {
    int fd;
    const char *path;        /* NULL: standard output */
    char temp[PATH_MAX + 1]; /* its name until it is whole */
};

/**
 * chsnap_file_open() - begin a new file.
 * @path: borrowed; NULL for standard output.
 *
 * It has another name beside it until it is whole, and goes when a signal ends the program.
 * Return: CHSNAP_OK; or CHSNAP_FAILED after a complaint: something of that name is there.
 * Threads: main.
 */
CHECKED int chsnap_file_open(const struct chsnap *c, struct chsnap_file *f, const char *path);

/**
 * chsnap_file_close() - have it on the disk, then give it its name; else remove it.
 * @status: whether it is whole: an enum chsnap_exit.
 *
 * Return: @status; or CHSNAP_FAILED after a complaint.
 * Threads: main.
 */
CHECKED int chsnap_file_close(const struct chsnap *c, struct chsnap_file *f, int status);

/* ---- the subcommands ---- */

extern const struct chsnap_command chsnap_create;
extern const struct chsnap_command chsnap_restore;
extern const struct chsnap_command chsnap_clone;
extern const struct chsnap_command chsnap_list;
extern const struct chsnap_command chsnap_show;
extern const struct chsnap_command chsnap_diff;
extern const struct chsnap_command chsnap_map;
extern const struct chsnap_command chsnap_verify;
extern const struct chsnap_command chsnap_rm;
extern const struct chsnap_command chsnap_prune;
extern const struct chsnap_command chsnap_tag;
extern const struct chsnap_command chsnap_gc;
extern const struct chsnap_command chsnap_stats;
extern const struct chsnap_command chsnap_dump;
extern const struct chsnap_command chsnap_export;
extern const struct chsnap_command chsnap_import;
extern const struct chsnap_command chsnap_copy;

/**
 * chsnap_info_json() - a snapshot as JSON, without its configuration.
 *
 * Return: owned; never NULL.
 * Threads: main.
 */
struct json_object *chsnap_info_json(const struct store_info *info);

#endif
