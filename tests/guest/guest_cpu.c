/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts, local APIC, timer, heartbeats.
 *
 * The timer of the first processor serves the heartbeat and, while that is off or polled, wait_for().
 */
#include "guest.h"

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    APIC_BASE_X2 = 1 << 10,
    APIC_BASE_ON = 1 << 11,
    LAPIC_ID = 0x02, /* register numbers: xAPIC address / 16, x2APIC MSR - 0x800 */
    LAPIC_EOI = 0x0b,
    LAPIC_SVR = 0x0f,
    LAPIC_ICR = 0x30,
    LAPIC_ICR_HIGH = 0x31,
    LAPIC_LVT_TIMER = 0x32,
    LAPIC_LVT_LINT0 = 0x35,
    LAPIC_TIMER_INIT = 0x38,
    LAPIC_TIMER_COUNT = 0x39,
    LAPIC_TIMER_DIV = 0x3e,
    LVT_MASKED = 1 << 16,
    LVT_PERIODIC = 1 << 17,
    LVT_DEADLINE = 2 << 17,
    IOAPIC_VERSION = 1,
    IOAPIC_TABLE = 0x10,
};

#define LAPIC_GPA 0xfee00000ull

struct idt_entry {
    uint16_t offset_low, selector, type, offset_mid;
    uint32_t offset_high, reserved;
};

enum beat_mode {
    BEAT_OFF,
    BEAT_DEADLINE,
    BEAT_PERIODIC,
    BEAT_LOOP,
};

static const char *const beat_names[] = {"off", "deadline", "periodic", "loop"};

struct heartbeat {
    enum beat_mode mode;
    bool stamp;
    uint64_t period; /* TSC ticks, as the next three */
    uint64_t next, last, longest;
    volatile uint64_t count;
};

extern char isr_stubs[];

volatile uint32_t nr_interrupts[256];

static struct idt_entry idt[256];
static bool has_deadline, x2apic;
static uint64_t lapic_khz; /* with divider 1; measured when first needed */
static struct heartbeat beat;
static volatile uint64_t resume_rip; /* where a fault inside an xxx_safe() goes */
static volatile bool faulted;

/* ---- Local APIC ---- */

static uint32_t lapic_read(unsigned reg)
{
    if (x2apic)
        return (uint32_t)rdmsr(MSR_X2APIC + reg);
    return *(volatile uint32_t *)at(LAPIC_GPA + 16 * reg);
}

static void lapic_write(unsigned reg, uint32_t value)
{
    if (x2apic)
        wrmsr(MSR_X2APIC + reg, value);
    else
        *(volatile uint32_t *)at(LAPIC_GPA + 16 * reg) = value;
}

void lapic_send(uint32_t apic_id, uint32_t command)
{
    if (x2apic) {
        wrmsr(MSR_X2APIC + LAPIC_ICR, (uint64_t)apic_id << 32 | command);
    } else {
        lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
        lapic_write(LAPIC_ICR, command);
    }
}

uint32_t lapic_id(void)
{
    uint32_t id = lapic_read(LAPIC_ID);

    return x2apic ? id : id >> 24;
}

bool lapic_is_x2(void)
{
    return x2apic;
}

void lapic_init(void)
{
    uint32_t r[4];

    cpuid(1, 0, r);
    has_deadline = r[2] >> 24 & 1;
    x2apic = r[2] >> 21 & 1;
    if (x2apic)
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ON | APIC_BASE_X2);
    lapic_write(LAPIC_SVR, 0x100 | VECTOR_SPURIOUS);
    lapic_write(LAPIC_LVT_LINT0, LVT_MASKED);
    lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
}

void load_idt(void)
{
    uint64_t base = gpa_of(idt);
    uint16_t pointer[5] = {sizeof(idt) - 1, (uint16_t)base, (uint16_t)(base >> 16),
                           (uint16_t)(base >> 32), (uint16_t)(base >> 48)};

    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void cpu_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t stub = gpa_of(isr_stubs) + 16 * i;

        idt[i] = (struct idt_entry){(uint16_t)stub, 0x10, 0x8e00, (uint16_t)(stub >> 16), 0, 0};
    }
    load_idt();
    outb(0x21, 0xff); /* a PIC, if there is one, stays silent */
    outb(0xa1, 0xff);
    lapic_init();
    smp_init();
}

static uint32_t ioapic_read(unsigned reg)
{
    volatile uint32_t *ioapic = at(acpi_ioapic());

    ioapic[0] = reg;
    return ioapic[4];
}

static void ioapic_write(unsigned reg, uint32_t value)
{
    volatile uint32_t *ioapic = at(acpi_ioapic());

    ioapic[0] = reg;
    ioapic[4] = value;
}

void ioapic_route(unsigned gsi, unsigned vector)
{
    ioapic_write(IOAPIC_TABLE + 2 * gsi + 1, lapic_id() << 24);
    ioapic_write(IOAPIC_TABLE + 2 * gsi, vector);
}

bool cpu_has_1gib_pages(void)
{
    uint32_t r[4];

    cpuid(0x80000000, 0, r);
    if (r[0] < 0x80000001)
        return false;
    cpuid(0x80000001, 0, r);
    return r[3] >> 26 & 1;
}

/* ---- Timer ---- */

static uint64_t lapic_timer_khz(void)
{
    if (lapic_khz == 0) {
        uint64_t ticks = us_to_tsc(5000), start, end;

        lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
        lapic_write(LAPIC_TIMER_DIV, 0xb);
        lapic_write(LAPIC_TIMER_INIT, UINT32_MAX);
        start = rdtsc();
        do {
            end = rdtsc();
        } while (end - start < ticks);
        lapic_khz = (uint64_t)(UINT32_MAX - lapic_read(LAPIC_TIMER_COUNT)) * clock_tsc_khz() /
                    (end - start);
        lapic_write(LAPIC_TIMER_INIT, 0);
    }
    return lapic_khz;
}

static void timer_at(uint64_t deadline)
{
    uint64_t now;

    if (has_deadline) {
        lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | VECTOR_TIMER);
        wrmsr(MSR_TSC_DEADLINE, deadline);
        return;
    }
    lapic_timer_khz();
    now = rdtsc();
    lapic_write(LAPIC_LVT_TIMER, VECTOR_TIMER);
    lapic_write(LAPIC_TIMER_DIV, 0xb);
    lapic_write(LAPIC_TIMER_INIT,
                deadline > now ? (uint32_t)((deadline - now) * lapic_khz / clock_tsc_khz()) + 1
                               : 1);
}

static void timer_off(void)
{
    if (has_deadline)
        wrmsr(MSR_TSC_DEADLINE, 0);
    lapic_write(LAPIC_TIMER_INIT, 0);
    lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
}

/* ---- Heartbeat ---- */

static void beat_once(uint64_t now)
{
    char text[9] = "~";
    unsigned len = 1;

    if (beat.stamp) {
        uint64_t us = tsc_to_us(now);

        for (; len < 9; len++)
            text[len] = "0123456789abcdef"[us >> (4 * (8 - len)) & 15];
    }
    beat_out(text, len);
    if (beat.count > 0 && now - beat.last > beat.longest)
        beat.longest = now - beat.last;
    beat.last = now;
    beat.count++;
}

static void beat_schedule(uint64_t now)
{
    beat.next += beat.period;
    if ((int64_t)(beat.next - now) <= 0)
        beat.next = now + beat.period;
}

static void timer_interrupt(void)
{
    uint64_t now = rdtsc();

    if (beat.mode == BEAT_DEADLINE || beat.mode == BEAT_PERIODIC)
        beat_once(now);
    if (beat.mode == BEAT_DEADLINE) {
        beat_schedule(rdtsc());
        timer_at(beat.next);
    }
}

void heartbeat_poll(void)
{
    uint64_t now;

    if (beat.mode != BEAT_LOOP)
        return;
    now = rdtsc();
    if ((int64_t)(now - beat.next) >= 0) {
        beat_once(now);
        beat_schedule(now);
    }
}

static void heartbeat_start(enum beat_mode mode, uint64_t period_us, bool stamp)
{
    irq_off();
    timer_off();
    beat = (struct heartbeat){.mode = mode, .stamp = stamp, .period = us_to_tsc(period_us)};
    beat.next = rdtsc() + beat.period;
    if (mode == BEAT_DEADLINE) {
        timer_at(beat.next);
    } else if (mode == BEAT_PERIODIC) {
        uint64_t khz = lapic_timer_khz();

        lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
        lapic_write(LAPIC_TIMER_DIV, 0xb);
        lapic_write(LAPIC_TIMER_INIT, (uint32_t)(period_us * khz / 1000));
    }
    irq_on();
}

static void cmd_heartbeat(unsigned argc, char **argv)
{
    enum beat_mode mode = BEAT_DEADLINE;
    bool stamp = false;
    uint64_t period_us;

    if (argc == 2 && same_text(argv[1], "stat")) {
        out("ok mode=%s count=%u longest_us=%u\n", beat_names[beat.mode], beat.count,
            tsc_to_us(beat.longest));
        return;
    }
    if (argc == 2 && same_text(argv[1], "off")) {
        irq_off();
        timer_off();
        beat.mode = BEAT_OFF;
        irq_on();
        out("ok count=%u longest_us=%u\n", beat.count, tsc_to_us(beat.longest));
        return;
    }
    if (!arg_u64(argc, argv, 1, "period_us, off or stat", &period_us))
        return;
    for (unsigned i = 2; i < argc; i++) {
        if (same_text(argv[i], "stamp"))
            stamp = true;
        for (unsigned m = BEAT_DEADLINE; m <= BEAT_LOOP; m++) {
            if (same_text(argv[i], beat_names[m]))
                mode = (enum beat_mode)m;
        }
    }
    if (period_us < 100 || period_us > 1000000) {
        out("err heartbeat: period_us from 100 to 1000000\n");
        return;
    }
    out("ok mode=%s\n", beat_names[mode]);
    heartbeat_start(mode, period_us, stamp);
}

/* ---- Interrupts ---- */

static void exception(struct frame *frame)
{
    uint64_t cr2;

    if (frame->vector == 2) {
        nr_interrupts[2]++;
        return;
    }
    if (resume_rip) {
        frame->rip = resume_rip;
        faulted = true;
        return;
    }
    __asm__ volatile("movq %%cr2, %0" : "=r"(cr2));
    out("\npanic vector=%u error=0x%x rip=0x%x cr2=0x%x rsp=0x%x\n", frame->vector, frame->error,
        frame->rip, cr2, frame->rsp);
    halt_forever();
}

void interrupt(struct frame *frame)
{
    if (frame->vector < 32) {
        exception(frame);
        return;
    }
    if (frame->vector == VECTOR_WAKE) {
        ap_wake();
        lapic_write(LAPIC_EOI, 0);
        return;
    }
    nr_interrupts[frame->vector]++;
    switch (frame->vector) {
    case VECTOR_TIMER:
        timer_interrupt();
        break;
    case VECTOR_SERIAL:
        serial_interrupt();
        break;
    case VECTOR_GED:
        ged_interrupt();
        break;
    case VECTOR_SPURIOUS:
        return;
    default:
        break;
    }
    lapic_write(LAPIC_EOI, 0);
}

void idle(bool (*pending)(void))
{
    if (beat.mode == BEAT_LOOP)
        return;
    irq_off();
    if (pending()) {
        irq_on();
        return;
    }
    __asm__ volatile("sti; hlt" : : : "memory");
}

bool wait_for(bool (*done)(void *), void *arg, uint64_t timeout_us)
{
    uint64_t deadline = rdtsc() + us_to_tsc(timeout_us);

    while (!done(arg)) {
        if ((int64_t)(rdtsc() - deadline) >= 0)
            return false;
        heartbeat_poll();
        irq_off();
        if (done(arg)) {
            irq_on();
            return true;
        }
        if (beat.mode == BEAT_LOOP) {
            irq_on();
            continue;
        }
        if (beat.mode == BEAT_OFF)
            timer_at(deadline);
        __asm__ volatile("sti; hlt" : : : "memory");
    }
    return true;
}

/* ---- Registers ---- */

bool rdmsr_safe(uint32_t msr, uint64_t *ret_value)
{
    uint32_t low, high;

    faulted = false;
    __asm__ volatile("leaq 1f(%%rip), %%rax\n\t"
                     "movq %%rax, %3\n\t"
                     "rdmsr\n"
                     "1:"
                     : "=&a"(low), "=&d"(high)
                     : "c"(msr), "m"(resume_rip)
                     : "memory");
    resume_rip = 0;
    *ret_value = (uint64_t)high << 32 | low;
    return !faulted;
}

bool wrmsr_safe(uint32_t msr, uint64_t value)
{
    faulted = false;
    __asm__ volatile("leaq 1f(%%rip), %%rsi\n\t"
                     "movq %%rsi, %3\n\t"
                     "wrmsr\n"
                     "1:"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "m"(resume_rip)
                     : "memory", "rsi");
    resume_rip = 0;
    return !faulted;
}

static void cmd_cpuid(unsigned argc, char **argv)
{
    uint64_t leaf, sub = 0;
    uint32_t r[4];

    if (!arg_u64(argc, argv, 1, "leaf", &leaf) ||
        (argc > 2 && !arg_u64(argc, argv, 2, "subleaf", &sub)))
        return;
    cpuid((uint32_t)leaf, (uint32_t)sub, r);
    out("ok eax=0x%x ebx=0x%x ecx=0x%x edx=0x%x\n", (uint64_t)r[0], (uint64_t)r[1], (uint64_t)r[2],
        (uint64_t)r[3]);
}

static void cmd_rdmsr(unsigned argc, char **argv)
{
    uint64_t msr, value;

    if (!arg_u64(argc, argv, 1, "msr", &msr))
        return;
    if (rdmsr_safe((uint32_t)msr, &value))
        out("ok 0x%x\n", value);
    else
        out("err rdmsr: general protection fault\n");
}

static void cmd_wrmsr(unsigned argc, char **argv)
{
    uint64_t msr, value;

    if (!arg_u64(argc, argv, 1, "msr", &msr) || !arg_u64(argc, argv, 2, "value", &value))
        return;
    if (wrmsr_safe((uint32_t)msr, value))
        out("ok\n");
    else
        out("err wrmsr: general protection fault\n");
}

static void cmd_irqs(unsigned argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < 256; i++) {
        if (nr_interrupts[i])
            out("| vector 0x%x count %u\n", (uint64_t)i, (uint64_t)nr_interrupts[i]);
    }
    out("ok timer=%u serial=%u nmi=%u\n", (uint64_t)nr_interrupts[VECTOR_TIMER],
        (uint64_t)nr_interrupts[VECTOR_SERIAL], (uint64_t)nr_interrupts[2]);
}

static void cmd_ioapic(unsigned argc, char **argv)
{
    uint32_t version = ioapic_read(IOAPIC_VERSION);

    (void)argc;
    (void)argv;
    for (unsigned i = 0; i <= (version >> 16 & 0xff) && i < 240; i++) {
        uint64_t low = ioapic_read(IOAPIC_TABLE + 2 * i);
        uint64_t high = ioapic_read(IOAPIC_TABLE + 2 * i + 1);

        if (!(low & LVT_MASKED))
            out("| pin %u 0x%x\n", (uint64_t)i, high << 32 | low);
    }
    out("ok version=0x%x\n", (uint64_t)version);
}

const struct command cpu_commands[] = {
    {"heartbeat", "period_us [deadline|periodic|loop] [stamp] | off | stat", cmd_heartbeat},
    {"cpuid",     "leaf [subleaf]",                                          cmd_cpuid    },
    {"rdmsr",     "msr",                                                     cmd_rdmsr    },
    {"wrmsr",     "msr value",                                               cmd_wrmsr    },
    {"irqs",      "",                                                        cmd_irqs     },
    {"ioapic",    "",                                                        cmd_ioapic   },
    {NULL,        NULL,                                                      NULL         },
};
