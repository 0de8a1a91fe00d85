/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables as bytes, and as the ACPI Component Architecture reads them:
 * iasl takes them apart and compiles them again, acpiexec runs the methods.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "core/gmem.h"
#include "core/wire.h"
#include "core/x86/acpi.h"

enum {
    HEADER = 36,
    NOTIFY_TRIES = 20,
};

static const struct acpi_cpu cpus[] = {
    {.apic_id = 0,   .node = 0, .enabled = true },
    {.apic_id = 1,   .node = 0, .enabled = true },
    {.apic_id = 2,   .node = 1, .enabled = true },
    {.apic_id = 300, .node = 1, .enabled = false},
};

static const struct acpi_memory memory[] = {
    {.gpa = 0,       .len = GIB(1), .node = 0      },
    { .gpa = X86_RAM64_GPA, .len = GIB(1),     .node = 1, .hotplug = true},
};

static const uint8_t distances[] = {10, 20, 30, 10};

static const struct acpi_pci_segment segments[] = {
    {.segment = 0,
     .mmio32 = {X86_MMIO32_GPA, X86_MMIO32_SIZE},
     .mmio64 = {UINT64_C(1) << 40, UINT64_C(1) << 40}                                             },
    {.segment = 1, .node = 1,                     .mmio64 = {UINT64_C(1) << 41, UINT64_C(1) << 40}},
};

static struct acpi_config full_config(void)
{
    return (struct acpi_config){
        .cpus = cpus,
        .nr_cpus = ARRAY_LEN(cpus),
        .segments = segments,
        .nr_segments = ARRAY_LEN(segments),
        .nr_nodes = 2,
        .memory = memory,
        .nr_memory = ARRAY_LEN(memory),
        .distances = distances,
        .platform_gpa = x86_platform_gpa(46),
        .genid_gpa = X86_GENID_GPA,
        .serial = true,
        .rtc = true,
    };
}

static struct acpi_tables build(const struct acpi_config *cfg)
{
    struct acpi_tables t = {0};
    struct err err = {0};

    if (acpi_build(cfg, X86_ACPI_GPA, X86_ACPI_SIZE, &t, &err) < 0)
        fail_msg("%s", err.msg);
    return t;
}

/* --- Bytes --------------------------------------------------------------- */

static uint32_t le32_at(const uint8_t *p)
{
    return le32_get(*(const le32 *)p);
}

static uint64_t le64_at(const uint8_t *p)
{
    return le64_get(*(const le64 *)p);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len--)
        s = (uint8_t)(s + *p++);
    return s;
}

static const uint8_t *table_at(const struct acpi_tables *t, uint64_t gpa)
{
    const uint8_t *p;

    assert_true(gpa >= t->gpa);
    assert_true(gpa - t->gpa <= t->len - HEADER);
    assert_int_equal(gpa % 16, 0);
    p = t->data + (gpa - t->gpa);
    assert_true(le32_at(p + 4) <= t->len - (gpa - t->gpa));
    assert_int_equal(sum(p, le32_at(p + 4)), 0);
    return p;
}

/* The table with a signature, found as an OS finds it; NULL if it is not listed. */
static const uint8_t *table_find(const struct acpi_tables *t, const char *sig)
{
    const uint8_t *xsdt;
    const uint8_t *fadt;

    assert_memory_equal(t->data, "RSD PTR ", 8);
    assert_int_equal(sum(t->data, 20), 0);
    assert_int_equal(sum(t->data, 36), 0);
    xsdt = table_at(t, le64_at(t->data + 24));
    assert_memory_equal(xsdt, "XSDT", 4);
    fadt = table_at(t, le64_at(xsdt + HEADER));
    assert_memory_equal(fadt, "FACP", 4);
    if (strcmp(sig, "DSDT") == 0)
        return table_at(t, le64_at(fadt + 140));
    for (const uint8_t *p = xsdt + HEADER; p < xsdt + le32_at(xsdt + 4); p += 8) {
        const uint8_t *table = table_at(t, le64_at(p));

        if (memcmp(table, sig, 4) == 0)
            return table;
    }
    return NULL;
}

static void test_fadt_describes_a_hardware_reduced_machine(void **state)
{
    struct acpi_config cfg = full_config();
    struct acpi_tables t = build(&cfg);
    const uint8_t *f = table_find(&t, "FACP");

    (void)state;
    assert_int_equal(le32_at(f + 4), 276);
    assert_int_equal(f[8], 6);
    assert_int_equal(le32_at(f + 112), 1 << 20 | 1 << 10 | 1 << 8 | 1 << 5 | 1 << 4);
    assert_int_equal(f[109], 1 << 2); /* no VGA; the CMOS clock is there */
    assert_int_equal(le64_at(f + 120), X86_PORT_ACPI_SHUTDOWN);
    assert_int_equal(f[128], X86_ACPI_RESET_VALUE);
    assert_int_equal(le64_at(f + 212), X86_PORT_ACPI_PM_TIMER);
    assert_int_equal(le64_at(f + 248), X86_PORT_ACPI_SHUTDOWN);
    acpi_tables_release(&t);
    cfg.rtc = false;
    cfg.i8042 = true;
    t = build(&cfg);
    f = table_find(&t, "FACP");
    assert_int_equal(f[109], 1 << 2 | 1 << 5 | 1 << 1);
    acpi_tables_release(&t);
}

static void test_madt_lists_processors_ioapic_and_override(void **state)
{
    static const uint8_t want[] = {
        0x00, 0x00, 0xe0, 0xfe, 0,    0,    0,    0, /* local APIC, flags */
        0,    8,    0,    0,    1,    0,    0,    0, /* vCPU 0 */
        0,    8,    1,    1,    1,    0,    0,    0, /* vCPU 1 */
        0,    8,    2,    2,    1,    0,    0,    0, /* vCPU 2 */
        9,    16,   0,    0,    0x2c, 1,    0,    0,    2, 0, 0, 0,
        3,    0,    0,    0,                                        /* vCPU 3: not there yet */
        1,    12,   0,    0,    0x00, 0x00, 0xc0, 0xfe, 0, 0, 0, 0, /* IOAPIC */
        2,    10,   0,    4,    4,    0,    0,    0,    0, 0,       /* COM1 */
    };
    struct acpi_config cfg = full_config();
    struct acpi_tables t = build(&cfg);
    const uint8_t *m = table_find(&t, "APIC");

    (void)state;
    assert_non_null(m);
    assert_int_equal(le32_at(m + 4), HEADER + sizeof(want));
    assert_memory_equal(m + HEADER, want, sizeof(want));
    acpi_tables_release(&t);
}

static void test_mcfg_gives_a_mib_to_each_segment(void **state)
{
    struct acpi_config cfg = full_config();
    struct acpi_tables t = build(&cfg);
    const uint8_t *m = table_find(&t, "MCFG");

    (void)state;
    assert_non_null(m);
    assert_int_equal(le32_at(m + 4), HEADER + 8 + 2 * 16);
    assert_int_equal(le64_at(m + 44), X86_ECAM_GPA);
    assert_int_equal(le64_at(m + 60), X86_ECAM_GPA + MIB(1));
    assert_int_equal(m[68], 1);
    acpi_tables_release(&t);
}

static void test_numa_tables_are_there_only_with_nodes(void **state)
{
    struct acpi_config cfg = full_config();
    struct acpi_tables t = build(&cfg);
    const uint8_t *s = table_find(&t, "SRAT");
    const uint8_t *l = table_find(&t, "SLIT");

    (void)state;
    assert_non_null(s);
    assert_int_equal(le32_at(s + 4), HEADER + 12 + 3 * 16 + 24 + 2 * 40);
    assert_int_equal(s[48 + 2 * 16 + 2], 1); /* vCPU 2 in node 1 */
    assert_int_equal(le64_at(s + 160 + 8), X86_RAM64_GPA);
    assert_int_equal(le32_at(s + 160 + 28), 3); /* enabled, hot-pluggable */
    assert_non_null(l);
    assert_memory_equal(l + 44, distances, 4);
    acpi_tables_release(&t);
    cfg.nr_nodes = 0;
    cfg.distances = NULL;
    t = build(&cfg);
    assert_null(table_find(&t, "SRAT"));
    assert_null(table_find(&t, "SLIT"));
    acpi_tables_release(&t);
}

static void test_tables_are_written_where_the_rsdp_is_looked_for(void **state)
{
    struct gmem_backing backing = {.fd = -1};
    struct acpi_config cfg = full_config();
    struct acpi_tables t = build(&cfg);
    uint8_t *got = malloc(t.len);
    struct gmem *gm;
    uint64_t rsdp;

    (void)state;
    assert_non_null(got);
    assert_int_equal(gmem_new(&gm), 0);
    assert_int_equal(acpi_write(gm, &cfg, &rsdp, NULL), -EINVAL);
    assert_true(gmem_add_region(gm, 0, MIB(2), "ram", &backing, NULL) >= 0);
    assert_int_equal(acpi_write(gm, &cfg, &rsdp, NULL), 0);
    assert_int_equal(rsdp, X86_EBDA_GPA);
    assert_int_equal(gmem_copy_in(gm, rsdp, got, t.len), 0);
    assert_memory_equal(got, t.data, t.len);
    gmem_free(gm);
    free(got);
    acpi_tables_release(&t);
}

static void test_contradictions_are_refused(void **state)
{
    struct acpi_pci_segment segment = {.segment = 96};
    struct acpi_config cfg = full_config();
    uint8_t near[4] = {10, 9, 20, 10};
    struct acpi_tables t;
    struct err err = {0};

    (void)state;
    cfg.nr_cpus = 0;
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, &err), -EINVAL);
    cfg.nr_cpus = ACPI_CPUS_MAX + 1;
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, &err), -EINVAL);
    cfg = full_config();
    cfg.nr_nodes = 1;
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, NULL), -EINVAL);
    cfg = full_config();
    cfg.distances = near;
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, NULL), -EINVAL);
    cfg = full_config();
    cfg.segments = &segment;
    cfg.nr_segments = 1;
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, NULL), -EINVAL);
    segment = (struct acpi_pci_segment){
        .mmio32 = {UINT64_C(1) << 32, 1}
    };
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, NULL), -EINVAL);
    segment = (struct acpi_pci_segment){
        .mmio64 = {1, UINT64_MAX}
    };
    assert_int_equal(acpi_build(&cfg, 0, X86_ACPI_SIZE, &t, NULL), -EINVAL);
}

static void test_a_thousand_processors_fit(void **state)
{
    static struct acpi_cpu many[ACPI_CPUS_MAX];
    struct acpi_config cfg = full_config();
    struct acpi_tables t;
    size_t len;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(many); i++)
        many[i] = (struct acpi_cpu){.apic_id = i, .enabled = i == 0};
    cfg.cpus = many;
    cfg.nr_cpus = 1024;
    t = build(&cfg);
    len = t.len;
    acpi_tables_release(&t);
    /* One byte less is refused, as is anything smaller. */
    for (size_t cap = len - 1; cap > 64; cap -= cap < 4096 ? 16 : 1024)
        assert_int_equal(acpi_build(&cfg, X86_ACPI_GPA, cap, &t, NULL), -E2BIG);
    cfg.nr_cpus = ACPI_CPUS_MAX;
    assert_int_equal(acpi_build(&cfg, X86_ACPI_GPA, X86_ACPI_SIZE, &t, NULL), -E2BIG);
}

/* --- The reference implementation ---------------------------------------- */

static char dir[] = "/tmp/chrysalis-acpi-XXXXXX";

static int tools_setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int tools_teardown(void **state)
{
    char cmd[128];

    (void)state;
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd);
}

/* Run a tool in the directory; its output is in *out. */
static int tool(const char *cmd, char *out, size_t cap)
{
    char line[512];
    size_t len;
    FILE *f;

    (void)snprintf(line, sizeof(line), "cd %s && timeout 60 %s 2>&1", dir, cmd);
    f = popen(line, "r");
    assert_non_null(f);
    len = fread(out, 1, cap - 1, f);
    out[len] = 0;
    return WEXITSTATUS(pclose(f));
}

static void tools_needed(const char *name)
{
    char cmd[64];

    (void)snprintf(cmd, sizeof(cmd), "command -v %s >/dev/null", name);
    if (system(cmd) != 0) {
        print_message("skipped: %s is not installed (package acpica-tools)\n", name);
        skip();
    }
}

static void table_save(const uint8_t *table, const char *name)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(table, 1, le32_at(table + 4), f), le32_at(table + 4));
    assert_int_equal(fclose(f), 0);
}

static void test_iasl_reads_and_compiles_every_table(void **state)
{
    static const char *const names[] = {"DSDT", "FACP", "APIC", "MCFG", "SRAT", "SLIT"};
    static char out[65536];
    struct acpi_config cfg = full_config();
    struct acpi_tables t;
    char cmd[128];

    (void)state;
    tools_needed("iasl");
    t = build(&cfg);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        table_save(table_find(&t, names[i]), names[i]);
        (void)snprintf(cmd, sizeof(cmd), "iasl -d %s.dat", names[i]);
        if (tool(cmd, out, sizeof(out)) != 0 || strstr(out, "Error") || strstr(out, "Warning"))
            fail_msg("%s: %s", cmd, out);
        (void)snprintf(cmd, sizeof(cmd), "iasl -p again %s.dsl", names[i]);
        if (tool(cmd, out, sizeof(out)) != 0 || !strstr(out, "0 Errors, 0 Warnings"))
            fail_msg("%s: %s", cmd, out);
    }
    acpi_tables_release(&t);
}

static void test_acpiexec_runs_the_methods(void **state)
{
    static const struct {
        const char *command;
        const char *answer;
    } rows[] = {
        {"evaluate \\_S5",                                                     "= 0000000000000005"                       },
        {"evaluate \\_SB.VGEN.ADDR",                                           "= 00000000000EF000"                       },
        {"evaluate \\_SB.VGEN._DDN",                                           "VM_Gen_Counter"                           },
        {"evaluate \\_SB.PC00._SEG",                                           "= 0000000000000000"                       },
        {"evaluate \\_SB.PC01._PXM",                                           "= 0000000000000001"                       },
        {"evaluate \\_SB.CPUS.C003._STA",                                      "= 0000000000000000"                       },
        {"evaluate \\_SB.CPUS.C002._PXM",                                      "= 0000000000000001"                       },
        {"evaluate \\_SB.PC00._DSM (D037C9E553357A4D9117EA4D19C3434D) 1 0 []", "0000: 21"                                 },
        {"evaluate \\_SB.PC00._DSM (D037C9E553357A4D9117EA4D19C3434D) 1 5 []",
         "= 0000000000000000"                                                                                             },
        {"evaluate \\_SB.PC00._DSM (00) 1 5 []",                               "0000: 00"                                 },
        {"resources \\_SB.COM1",                                               "Address Minimum : 03F8"                   },
        {"resources \\_SB.GED_",                                               "Dword00 : 00000005"                       },
        {"resources \\_SB.MBRD",                                               "Address : E8000000"                       },
        {"resources \\_SB.PC00",                                               "Address Maximum : 000001FFFFFFFFFF"       },
        {"execute \\_SB.GED_._EVT 5",                                          "No object was returned from evaluation of"},
    };
    static char out[65536];
    struct acpi_config cfg = full_config();
    struct acpi_tables t;
    char cmd[256];

    (void)state;
    tools_needed("acpiexec");
    t = build(&cfg);
    table_save(table_find(&t, "DSDT"), "DSDT");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        (void)snprintf(cmd, sizeof(cmd), "acpiexec -b '%s;quit' DSDT.dat", rows[i].command);
        (void)tool(cmd, out, sizeof(out));
        if (!strstr(out, rows[i].answer) || strstr(out, "AE_AML"))
            fail_msg("%s: no \"%s\" in: %s", cmd, rows[i].answer, out);
    }
    acpi_tables_release(&t);
}

/* acpiexec answers a read of the event register with a byte of our choice. */
static void test_acpiexec_notifies_what_the_event_byte_says(void **state)
{
    static const struct {
        unsigned byte;
        const char *yes;
        const char *no;
    } rows[] = {
        {X86_GED_POWER_BUTTON,                 "Notify on [PWRB]", "Notify on [VGEN]"},
        {X86_GED_GENID,                        "Notify on [VGEN]", "Notify on [PWRB]"},
        {X86_GED_GENID | X86_GED_POWER_BUTTON, "Notify on [VGEN]", "nothing"         },
    };
    static char out[65536];
    struct acpi_config cfg = full_config();
    struct acpi_tables t;
    char cmd[256];

    (void)state;
    tools_needed("acpiexec");
    t = build(&cfg);
    table_save(table_find(&t, "DSDT"), "DSDT");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        (void)snprintf(cmd, sizeof(cmd),
                       "acpiexec -fv 0x%02x -b 'execute \\_SB.GED_._EVT 5;quit' DSDT.dat",
                       rows[i].byte);
        /* acpiexec tells of a notification from another thread, if it is quicker than the end. */
        for (unsigned tries = 0; tries < NOTIFY_TRIES; tries++) {
            (void)tool(cmd, out, sizeof(out));
            if (strstr(out, rows[i].yes) || strstr(out, rows[i].no))
                break;
        }
        if (!strstr(out, rows[i].yes) || strstr(out, rows[i].no))
            fail_msg("%s: %s", cmd, out);
    }
    acpi_tables_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fadt_describes_a_hardware_reduced_machine),
        cmocka_unit_test(test_madt_lists_processors_ioapic_and_override),
        cmocka_unit_test(test_mcfg_gives_a_mib_to_each_segment),
        cmocka_unit_test(test_numa_tables_are_there_only_with_nodes),
        cmocka_unit_test(test_tables_are_written_where_the_rsdp_is_looked_for),
        cmocka_unit_test(test_contradictions_are_refused),
        cmocka_unit_test(test_a_thousand_processors_fit),
        cmocka_unit_test(test_iasl_reads_and_compiles_every_table),
        cmocka_unit_test(test_acpiexec_runs_the_methods),
        cmocka_unit_test(test_acpiexec_notifies_what_the_event_byte_says),
    };

    return cmocka_run_group_tests_name("x86/acpi", tests, tools_setup, tools_teardown);
}
