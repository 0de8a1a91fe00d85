/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's clocks: TSC, kvmclock, ACPI PM timer, CMOS.
 */
#include "guest.h"

enum {
    MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00,
    MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01,
    KVM_FEATURE_CLOCKSOURCE2 = 1 << 3,
    PM_TIMER_HZ = 3579545,
    CMOS_INDEX = 0x70,
    CMOS_DATA = 0x71,
};

struct pvclock {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad2[2];
};

static volatile struct pvclock pvclock __attribute__((aligned(64)));
static volatile uint32_t wall_clock[3] __attribute__((aligned(16))); /* version, s, ns */
static bool has_kvmclock;
static uint64_t tsc_khz;

static bool find_kvmclock(void)
{
    for (uint32_t leaf = 0x40000000; leaf < 0x40001000; leaf += 0x100) {
        uint32_t r[4];

        cpuid(leaf, 0, r);
        /* "KVMKVMKVM" */
        if (r[1] == 0x4b4d564b && r[2] == 0x564b4d56 && r[3] == 0x4d) {
            cpuid(leaf + 1, 0, r);
            return r[0] & KVM_FEATURE_CLOCKSOURCE2;
        }
    }
    return false;
}

/* The ticks of the TSC while the PM timer counts for 20 ms. */
static uint64_t measure_tsc_khz(void)
{
    uint16_t port = acpi_pm_timer();
    uint32_t first = inl(port), ticks = 0;
    uint64_t start = rdtsc(), end = start;

    for (unsigned i = 0; i < 1000000 && ticks < PM_TIMER_HZ / 50; i++) {
        ticks = (inl(port) - first) & 0xffffff;
        end = rdtsc();
    }
    if (ticks < PM_TIMER_HZ / 50)
        return 2000000; /* no clock at all: any figure will do */
    return (end - start) * (PM_TIMER_HZ / 1000) / ticks;
}

void clock_init(void)
{
    has_kvmclock = find_kvmclock();
    if (has_kvmclock) {
        wrmsr(MSR_KVM_SYSTEM_TIME_NEW, gpa_of(&pvclock) | 1);
        if (pvclock.tsc_to_system_mul != 0) {
            tsc_khz = (1000000ull << 32) / pvclock.tsc_to_system_mul;
            if (pvclock.tsc_shift < 0)
                tsc_khz <<= -pvclock.tsc_shift;
            else
                tsc_khz >>= pvclock.tsc_shift;
            return;
        }
        has_kvmclock = false;
    }
    tsc_khz = measure_tsc_khz();
}

uint64_t clock_tsc_khz(void)
{
    return tsc_khz;
}

uint64_t us_to_tsc(uint64_t us)
{
    return us * tsc_khz / 1000;
}

uint64_t tsc_to_us(uint64_t ticks)
{
    return ticks / tsc_khz * 1000 + ticks % tsc_khz * 1000 / tsc_khz;
}

uint64_t kvmclock_gpa(void)
{
    return has_kvmclock ? gpa_of(&pvclock) : 0;
}

uint64_t kvmclock_ns(void)
{
    uint32_t version;
    uint64_t ns;

    if (!has_kvmclock)
        return 0;
    do {
        uint64_t delta;

        version = pvclock.version & ~1u;
        delta = rdtsc() - pvclock.tsc_timestamp;
        if (pvclock.tsc_shift < 0)
            delta >>= -pvclock.tsc_shift;
        else
            delta <<= pvclock.tsc_shift;
        ns = pvclock.system_time +
             (uint64_t)((unsigned __int128)delta * pvclock.tsc_to_system_mul >> 32);
    } while (version != pvclock.version);
    return ns;
}

static uint64_t cmos(unsigned index)
{
    outb(CMOS_INDEX, (uint8_t)index);
    return inb(CMOS_DATA);
}

static void cmd_clock(unsigned argc, char **argv)
{
    uint64_t pm = inl(acpi_pm_timer());
    uint64_t tsc = rdtsc(), ns = kvmclock_ns();

    (void)argc;
    (void)argv;
    if (has_kvmclock)
        wrmsr(MSR_KVM_WALL_CLOCK_NEW, gpa_of(wall_clock));
    out("ok tsc=%u tsc_us=%u kvmclock_ns=%u flags=%u wall_s=%u pm=%u cmos=", tsc, tsc_to_us(tsc),
        ns, (uint64_t)pvclock.flags, (uint64_t)wall_clock[1], pm);
    /* Century and year to second, as the chip has them. */
    out("%b%b-%b-%bT%b:%b:%b status_b=0x%x\n", cmos(0x32), cmos(9), cmos(8), cmos(7), cmos(4),
        cmos(2), cmos(0), cmos(0xb));
}

static void cmd_cmos(unsigned argc, char **argv)
{
    uint64_t index, value;

    if (!arg_u64(argc, argv, 1, "index", &index))
        return;
    if (argc > 2) {
        if (!arg_u64(argc, argv, 2, "value", &value))
            return;
        outb(CMOS_INDEX, (uint8_t)index);
        outb(CMOS_DATA, (uint8_t)value);
    }
    out("ok 0x%x\n", cmos((unsigned)index));
}

const struct command clock_commands[] = {
    {"clock", "",              cmd_clock},
    {"cmos",  "index [value]", cmd_cmos },
    {NULL,    NULL,            NULL     },
};
