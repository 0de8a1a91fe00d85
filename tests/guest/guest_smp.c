/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Further processors: started by INIT and SIPI, woken by an interrupt, each with its own job.
 */
#include "guest.h"

enum {
    ICR_FIXED = 0x4000,
    ICR_INIT = 0x4500,
    ICR_STARTUP = 0x4600,
};

enum ap_job {
    AP_IDLE,
    AP_COUNT,
    AP_DIRTY,
};

struct ap {
    volatile uint32_t online;
    volatile uint32_t job; /* enum ap_job; written by the first processor */
    volatile uint32_t running;
    uint32_t apic_id;
    volatile uint64_t count; /* of loops, or of sweeps over its pages */
    volatile uint64_t nr_wakes;
    uint64_t start, nr_pages;
};

extern char ap_trampoline[], ap_trampoline_end[];

static struct ap aps[MAX_CPUS];

void smp_init(void)
{
    aps[0].online = 1;
    aps[0].apic_id = lapic_id();
}

static struct ap *ap_self(void)
{
    uint32_t id = lapic_id();

    for (unsigned i = 1; i < MAX_CPUS; i++) {
        if (aps[i].online && aps[i].apic_id == id)
            return &aps[i];
    }
    return &aps[0];
}

void ap_wake(void)
{
    ap_self()->nr_wakes++;
}

void ap_main(unsigned number)
{
    struct ap *self = &aps[number];

    load_idt();
    lapic_init();
    self->apic_id = lapic_id();
    self->online = 1;
    for (;;) {
        irq_off();
        if (self->job == AP_IDLE) {
            self->running = 0;
            __asm__ volatile("sti; hlt" : : : "memory");
            continue;
        }
        irq_on();
        self->running = 1;
        if (self->job == AP_COUNT) {
            self->count++;
        } else if (self->job == AP_DIRTY) {
            for (uint64_t i = 0; i < self->nr_pages; i++)
                *(volatile uint64_t *)at(self->start + i * PAGE_SIZE) += 1;
            self->count++;
        }
    }
}

static unsigned nr_online(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < MAX_CPUS; i++)
        n += aps[i].online;
    return n;
}

static bool all_online(void *arg)
{
    return nr_online() == *(const unsigned *)arg;
}

static void smp_start(void)
{
    uint32_t ids[MAX_CPUS];
    unsigned nr = acpi_cpus(ids, MAX_CPUS);
    uint32_t self = lapic_id();

    if (nr_online() < nr) {
        memcpy(at(AP_TRAMPOLINE), ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
        for (unsigned i = 0; i < nr; i++) {
            if (ids[i] == self)
                continue;
            lapic_send(ids[i], ICR_INIT);
            wait_for(all_online, &nr, 1000);
            lapic_send(ids[i], ICR_STARTUP | AP_TRAMPOLINE >> 12);
        }
    }
    for (unsigned i = 0; i < 500 && !all_online(&nr); i++)
        wait_for(all_online, &nr, 10000);
    out("%s online=%u of=%u\n", nr_online() == nr ? "ok" : "err smp:", (uint64_t)nr_online(),
        (uint64_t)nr);
}

static void smp_set_job(enum ap_job job)
{
    for (unsigned i = 1; i < MAX_CPUS; i++) {
        if (!aps[i].online)
            continue;
        aps[i].job = job;
        lapic_send(aps[i].apic_id, ICR_FIXED | VECTOR_WAKE);
    }
}

static bool all_stopped(void *arg)
{
    (void)arg;
    for (unsigned i = 1; i < MAX_CPUS; i++) {
        if (aps[i].online && aps[i].running)
            return false;
    }
    return true;
}

static void smp_dirty(unsigned argc, char **argv)
{
    uint64_t at_mib, mib, nr = nr_online() - 1;

    if (!arg_u64(argc, argv, 2, "at_mib", &at_mib) || !arg_u64(argc, argv, 3, "mib", &mib))
        return;
    if (!mem_is_free_ram(at_mib * MIB, mib * nr * MIB)) {
        out("err smp: not free RAM\n");
        return;
    }
    for (unsigned i = 1; i < MAX_CPUS; i++) {
        if (!aps[i].online)
            continue;
        aps[i].start = (at_mib + (i - 1) * mib) * MIB;
        aps[i].nr_pages = mib * MIB / PAGE_SIZE;
        aps[i].count = 0;
        sweep_words(at(aps[i].start), aps[i].nr_pages);
    }
    smp_set_job(AP_DIRTY);
    out("ok cpus=%u\n", nr);
}

/* Every page of a processor must hold the number of its finished sweeps. */
static void smp_check(void)
{
    uint64_t wrong = 0;

    for (unsigned i = 1; i < MAX_CPUS; i++) {
        for (uint64_t page = 0; aps[i].online && page < aps[i].nr_pages; page++)
            wrong += *(volatile uint64_t *)at(aps[i].start + page * PAGE_SIZE) != aps[i].count;
    }
    out("%s wrong=%u\n", wrong == 0 ? "ok" : "err smp:", wrong);
}

static void smp_stat(void)
{
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        if (aps[i].online)
            out("| cpu %u apic %u running %u count %u wakes %u\n", (uint64_t)i,
                (uint64_t)aps[i].apic_id, (uint64_t)aps[i].running, aps[i].count, aps[i].nr_wakes);
    }
    out("ok online=%u\n", (uint64_t)nr_online());
}

static void cmd_smp(unsigned argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (same_text(what, "start")) {
        smp_start();
    } else if (same_text(what, "count")) {
        smp_set_job(AP_COUNT);
        out("ok\n");
    } else if (same_text(what, "dirty")) {
        smp_dirty(argc, argv);
    } else if (same_text(what, "stop")) {
        bool stopped;

        smp_set_job(AP_IDLE);
        stopped = wait_for(all_stopped, NULL, 1000);
        for (unsigned i = 0; i < 300 && !stopped; i++)
            stopped = wait_for(all_stopped, NULL, 10000);
        out(stopped ? "ok\n" : "err smp: a processor does not stop\n");
    } else if (same_text(what, "check")) {
        smp_check();
    } else if (same_text(what, "stat")) {
        smp_stat();
    } else {
        out("err smp: start, count, dirty, stop, check or stat\n");
    }
}

const struct command smp_commands[] = {
    {"smp", "start | count | dirty at_mib mib_each | stop | check | stat", cmd_smp},
    {NULL,  NULL,                                                          NULL   },
};
