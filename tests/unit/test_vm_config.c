/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "core/config/vm_config.h"

#define KERNEL "\"payload\":{\"kernel\":\"/k\"}"

struct option {
    enum vm_option opt;
    const char *value;
};

static int from_text(const char *text, struct vm_config *ret_cfg, struct err *err)
{
    return vm_config_from_text(text, strlen(text), ret_cfg, err);
}

static void test_nothing_but_a_kernel_gives_the_defaults(void **state)
{
    struct vm_config cfg = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(vm_config_from_option(&cfg, VM_OPT_KERNEL, "/boot/vmlinuz", &err), 0);
    assert_int_equal(vm_config_complete(&cfg, &err), 0);
    assert_int_equal(cfg.cpus.boot_vcpus, 1);
    assert_int_equal(cfg.cpus.max_vcpus, 1);
    assert_int_equal(cfg.cpus.max_phys_bits, 46);
    assert_int_equal(cfg.memory.size, MIB(512));
    assert_int_equal(cfg.serial.mode, CONSOLE_NULL);
    assert_int_equal(cfg.console.mode, CONSOLE_TTY);
    assert_int_equal(cfg.debug_console.mode, CONSOLE_OFF);
    assert_int_equal(cfg.debug_console.iobase, 0xe9);
    assert_string_equal(cfg.rng.src, "/dev/urandom");
    assert_string_equal(cfg.payload.kernel, "/boot/vmlinuz");
    vm_config_release(&cfg);
    assert_null(cfg.payload.kernel);
}

static void test_every_option_arrives(void **state)
{
    /* clang-format off */
    static const struct option rows[] = {
        {VM_OPT_CPUS, "boot=8,max=8,topology=2:2:1:2,max_phys_bits=40,nested=off,features=[amx]"},
        {VM_OPT_MEMORY, "size=0,thp=off"},
        {VM_OPT_MEMORY_ZONE, "id=m0,size=1G,shared=on,hugepages=on,hugepage_size=2M,prefault=on"},
        {VM_OPT_MEMORY_ZONE, "id=m1,size=512M,file=/dev/shm,reserve=on"},
        {VM_OPT_KERNEL, "/k"},
        {VM_OPT_INITRAMFS, "/i"},
        {VM_OPT_CMDLINE, "console=ttyS0 a=b,c \"q\""},
        {VM_OPT_DISK, "path=\"/d,0\",readonly=on,direct=on,num_queues=2,queue_size=256,serial=abc,"
         "pci_device_id=7,sparse=off,image_type=raw,lock_granularity=full"},
        {VM_OPT_DISK, "path=/d1,id=root,_disable_io_uring=on"},
        {VM_OPT_NET, "tap=tap0,ip=192.168.1.1,mask=255.255.255.0,mac=02:00:00:00:00:0A,"
         "host_mac=02:00:00:00:00:0b,mtu=9000,num_queues=4,offload_tso=off"},
        {VM_OPT_NET, "fd=[5,6]"},
        {VM_OPT_RNG, "src=/dev/random"},
        {VM_OPT_SERIAL, "socket=/s"},
        {VM_OPT_CONSOLE, "file=/c"},
        {VM_OPT_DEBUG_CONSOLE, "tty,iobase=0x402"},
        {VM_OPT_PLATFORM, "system_uuid=11111111-2222-3333-4444-55555555555F,"
         "oem_strings=[a,\"b,c\"],system_manufacturer=\"A, Inc\",serial_number=n"},
    };
    /* clang-format on */
    struct vm_config cfg = {0};
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (vm_config_from_option(&cfg, rows[i].opt, rows[i].value, &err))
            fail_msg("%s: %s", rows[i].value, err.msg);
    if (vm_config_complete(&cfg, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(cfg.cpus.max_vcpus, 8);
    assert_int_equal(cfg.cpus.topology.packages, 2);
    assert_true(cfg.cpus.no_nested && cfg.cpus.amx);
    assert_true(cfg.memory.no_thp);
    assert_int_equal(cfg.memory.nr_zones, 2);
    assert_int_equal(cfg.memory.zones[0].hugepage_size, MIB(2));
    assert_true(cfg.memory.zones[0].shared && cfg.memory.zones[0].prefault);
    assert_string_equal(cfg.memory.zones[1].file, "/dev/shm");
    assert_string_equal(cfg.payload.cmdline, "console=ttyS0 a=b,c \"q\"");
    assert_string_equal(cfg.disks[0].path, "/d,0");
    assert_string_equal(cfg.disks[0].id, "_disk0");
    assert_true(cfg.disks[0].readonly && cfg.disks[0].direct && cfg.disks[0].no_sparse);
    assert_int_equal(cfg.disks[0].lock_granularity, DISK_LOCK_FULL);
    assert_int_equal(cfg.disks[0].pci_device_id, 7);
    assert_string_equal(cfg.disks[1].id, "root");
    assert_true(cfg.disks[1].disable_io_uring);
    assert_int_equal(cfg.disks[1].queue_size, 128);
    assert_string_equal(cfg.nets[0].id, "_net1");
    assert_int_equal(cfg.nets[0].mac[5], 10);
    assert_int_equal(cfg.nets[0].mtu, 9000);
    assert_true(cfg.nets[0].no_offload_tso && !cfg.nets[0].no_offload_ufo);
    assert_int_equal(cfg.nets[1].fds[1], 6);
    assert_int_equal(cfg.nets[1].num_queues, 4);
    assert_int_equal(cfg.nets[1].mac[0] & 3, 2);
    assert_int_equal(cfg.serial.mode, CONSOLE_SOCKET);
    assert_string_equal(cfg.console.file, "/c");
    assert_int_equal(cfg.debug_console.iobase, 0x402);
    assert_string_equal(cfg.platform.system_uuid, "11111111-2222-3333-4444-55555555555f");
    assert_string_equal(cfg.platform.system_serial_number, "n");
    assert_string_equal(cfg.platform.system_manufacturer, "A, Inc");
    assert_string_equal(cfg.platform.oem_strings[1], "b,c");
    vm_config_release(&cfg);
}

static void test_options_are_refused_by_name(void **state)
{
    /* clang-format off */
    static const struct {
        enum vm_option opt;
        const char *value;
        int rc;
        const char *msg;
    } rows[] = {
        {VM_OPT_CPUS, "boot=0", -EINVAL, "--cpus boot: 0 is not in 1..8192"},
        {VM_OPT_CPUS, "boot=two", -EINVAL, "--cpus boot: 'two' is not a number"},
        {VM_OPT_CPUS, "boot", -EINVAL, "--cpus boot: needs a value"},
        {VM_OPT_CPUS, "cores=2", -EINVAL, "--cpus: unknown key 'cores'"},
        {VM_OPT_CPUS, "topology=1:1", -EINVAL, "--cpus topology: must be 4 numbers"},
        {VM_OPT_CPUS, "topology=1:1:1:1:1", -EINVAL, "--cpus topology: must be 4 numbers"},
        {VM_OPT_CPUS, "features=[avx]", -EINVAL, "--cpus features: unknown feature 'avx'"},
        {VM_OPT_CPUS, "kvm_hyperv=on", -ENOTSUP, "--cpus kvm_hyperv: not supported yet"},
        {VM_OPT_CPUS, "affinity=[0@[1]]", -ENOTSUP, "--cpus affinity: not supported yet"},
        {VM_OPT_MEMORY, "size=1X", -EINVAL, "--memory size: '1X' is not a size"},
        {VM_OPT_MEMORY, "shared=maybe", -EINVAL, "--memory shared: 'maybe' is neither on nor off"},
        {VM_OPT_MEMORY, "hotplug_size=1G", -ENOTSUP, "--memory hotplug_size: not supported yet"},
        {VM_OPT_DISK, "path=/a,[", -EINVAL, "--disk: brackets or quotes do not match"},
        {VM_OPT_DISK, "path=/a,path=/b", -EINVAL, "--disk: path: is there twice"},
        {VM_OPT_DISK, "image_type=qcow2", -ENOTSUP, "--disk image_type: not supported yet"},
        {VM_OPT_DISK, "vhost_user=on", -ENOTSUP, "--disk vhost_user: not supported yet"},
        {VM_OPT_DISK, "bw_size=1", -ENOTSUP, "--disk bw_size: not supported yet"},
        {VM_OPT_DISK, "queue_size=65536", -EINVAL, "--disk queue_size: 65536 is not in"},
        {VM_OPT_DISK, "serial=123456789012345678901", -E2BIG, "--disk serial: longer than 20"},
        {VM_OPT_DISK, "lock_granularity=page", -EINVAL, "--disk lock_granularity: must be one of"},
        {VM_OPT_DISK, "path=\xff", -EINVAL, "--disk path: not UTF-8"},
        {VM_OPT_NET, "mac=1:2:3:4:5:6", -EINVAL, "--net mac: not a MAC address"},
        {VM_OPT_NET, "fd=[1]", -EINVAL, "--net fd: '1' is not a file descriptor"},
        {VM_OPT_NET, "vhost_user=true", -ENOTSUP, "--net vhost_user: not supported yet"},
        {VM_OPT_SERIAL, "tty,off", -EINVAL, "--serial off: only one mode"},
        {VM_OPT_SERIAL, "tty,file=/a", -EINVAL, "--serial: only one mode"},
        {VM_OPT_SERIAL, "tty=on", -EINVAL, "--serial tty: takes no value"},
        {VM_OPT_SERIAL, "stdio", -EINVAL, "--serial: unknown key 'stdio'"},
        {VM_OPT_CONSOLE, "socket=/a", -ENOTSUP, "--console socket: not supported yet"},
        {VM_OPT_PLATFORM, "uuid=1", -EINVAL, "--platform uuid: not a UUID"},
        {VM_OPT_PLATFORM, "tdx=on", -ENOTSUP, "--platform tdx: not supported yet"},
        {VM_OPT_PLATFORM, "serial_number=a,system_serial_number=b", -EINVAL,
         "--platform system_serial_number: is there already, under another name"},
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct vm_config cfg = {0};
        struct err err = {0};
        int rc = vm_config_from_option(&cfg, rows[i].opt, rows[i].value, &err);

        if (rc != rows[i].rc || strncmp(err.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("%s: %d '%s', not '%s'", rows[i].value, rc, err.msg, rows[i].msg);
        vm_config_release(&cfg);
    }
}

static void test_what_asks_for_nothing_is_taken(void **state)
{
    static const struct option rows[] = {
        {VM_OPT_CPUS,     "kvm_hyperv=off,core_scheduling=off,profile=host"                    },
        {VM_OPT_MEMORY,   "hotplug_method=acpi,hotplug_size=0"                                 },
        {VM_OPT_DISK,     "path=/a,iommu=false,vhost_user=OFF,image_type=raw,socket=,bw_size=0"},
        {VM_OPT_NET,      "tap=,mac=,ip=,mask=,vhost_mode=client"                              },
        {VM_OPT_PLATFORM, "num_pci_segments=1,vfio_p2p_dma=on,tdx=off"                         },
        {VM_OPT_RNG,      ""                                                                   },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct vm_config cfg = {0};
        struct err err = {0};

        if (vm_config_from_option(&cfg, rows[i].opt, rows[i].value, &err))
            fail_msg("%s: %s", rows[i].value, err.msg);
        vm_config_release(&cfg);
    }
}

static void test_json_is_refused_by_name(void **state)
{
    /* clang-format off */
    static const struct {
        const char *text;
        int rc;
        const char *msg;
    } rows[] = {
        {"[]", -EINVAL, "configuration: must be an object"},
        {"{}", -EINVAL, "payload.kernel: is missing"},
        {"{\"payload\":null}", -EINVAL, "payload.kernel: is missing"},
        {"{\"payload\":[]}", -EINVAL, "payload: must be an object"},
        {"{\"payload\":{\"firmware\":\"/f\"}}", -ENOTSUP, "payload.firmware: not supported yet"},
        {"{" KERNEL ",\"zzz\":1}", -EINVAL, "zzz: unknown field"},
        {"{" KERNEL ",\"cpus\":{\"boot_vcpus\":\"2\"}}", -EINVAL,
         "cpus.boot_vcpus: must be an integer"},
        {"{" KERNEL ",\"cpus\":{\"boot_vcpus\":-1}}", -EINVAL, "cpus.boot_vcpus: -1 is not in"},
        {"{" KERNEL ",\"cpus\":{\"boot_vcpus\":4,\"max_vcpus\":2}}", -EINVAL,
         "cpus.max_vcpus: 2 is less"},
        {"{" KERNEL ",\"cpus\":{\"boot_vcpus\":2,\"max_vcpus\":4}}", -ENOTSUP,
         "cpus.max_vcpus: 4 for 2 boot_vcpus: adding processors to a running VM is not supported"},
        {"{" KERNEL ",\"cpus\":{\"topology\":{\"threads_per_core\":1,\"cores_per_die\":2,"
         "\"dies_per_package\":1,\"packages\":1}}}", -EINVAL, "cpus.topology: 2 threads for 1"},
        {"{" KERNEL ",\"cpus\":{\"features\":{\"amx\":1}}}", -EINVAL,
         "cpus.features.amx: must be true or false"},
        {"{" KERNEL ",\"memory\":{\"size\":4097}}", -EINVAL, "memory.size: not a multiple of 4096"},
        {"{" KERNEL ",\"memory\":{\"size\":9223372036854771712}}", -EINVAL,
         "memory.size: does not fit"},
        {"{" KERNEL ",\"memory\":{\"hugepage_size\":2097152}}", -EINVAL,
         "memory.hugepage_size: needs hugepages"},
        {"{" KERNEL ",\"memory\":{\"hugepages\":true,\"hugepage_size\":3}}", -EINVAL,
         "memory.hugepage_size: 3 is not a power of two"},
        {"{" KERNEL ",\"memory\":{\"shared\":true,\"mergeable\":true}}", -EINVAL,
         "memory.mergeable: not possible"},
        {"{" KERNEL ",\"memory\":{\"size\":4096,\"zones\":[{\"id\":\"a\",\"size\":4096}]}}",
         -EINVAL, "memory.size: must be 0"},
        {"{" KERNEL ",\"memory\":{\"zones\":[{\"size\":4096}]}}", -EINVAL,
         "memory.zones[0].id: is missing"},
        {"{" KERNEL ",\"memory\":{\"zones\":[{\"id\":\"a\",\"size\":4096},"
         "{\"id\":\"a\",\"size\":4096}]}}", -EEXIST, "memory.zones[1].id: 'a' is there twice"},
        {"{" KERNEL ",\"memory\":{\"hotplug_size\":4096}}", -ENOTSUP,
         "memory.hotplug_size: not supported yet"},
        {"{" KERNEL ",\"disks\":{}}", -EINVAL, "disks: must be an array"},
        {"{" KERNEL ",\"disks\":[1]}", -EINVAL, "disks[0]: must be an object"},
        {"{" KERNEL ",\"disks\":[{}]}", -EINVAL, "disks[0].path: is missing"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\"},{\"path\":\"/b\",\"queue_size\":3}]}", -EINVAL,
         "disks[1].queue_size: 3 is not a power of two"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"queue_size\":2}]}", -EINVAL,
         "disks[0].queue_size: 2 is not in"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"num_queues\":2}]}", -EINVAL,
         "disks[0].num_queues: 2 is more"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\"},{\"path\":\"/a\"}]}", -EEXIST,
         "disks[1].path: /a is there twice"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"id\":\"x\"},{\"path\":\"/b\",\"id\":\"x\"}]}",
         -EEXIST, "disks[0].id: 'x' is there twice"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"id\":\"__rng\"}]}", -EINVAL,
         "disks[0].id: '__rng'"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"id\":\"a b\"}]}", -EINVAL, "disks[0].id: has"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"pci_segment\":1}]}", -ENOTSUP,
         "disks[0].pci_segment: only 0 is"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"pci_device_id\":32}]}", -EINVAL,
         "disks[0].pci_device_id: 32 is not in 1..31"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"pci_device_id\":3}],"
         "\"net\":[{\"pci_device_id\":3}]}", -EEXIST,
         "net[0].pci_device_id: 3 is already that of _disk0"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\\u0000b\"}]}", -EINVAL, "disks[0].path: not UTF-8"},
        {"{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"rate_limiter_config\":{\"ops\":{}}}]}",
         -ENOTSUP, "disks[0].rate_limiter_config: not supported yet"},
        {"{" KERNEL ",\"net\":[{\"num_queues\":3}]}", -EINVAL, "net[0].num_queues: 3 is not"},
        {"{" KERNEL ",\"net\":[{\"num_queues\":4}]}", -EINVAL, "net[0].num_queues: 2 pairs"},
        {"{" KERNEL ",\"net\":[{\"mtu\":1000}]}", -EINVAL, "net[0].mtu: 1000 is less than 1280"},
        {"{" KERNEL ",\"net\":[{\"ip\":\"1.2.3\"}]}", -EINVAL, "net[0].ip: '1.2.3' is not"},
        {"{" KERNEL ",\"net\":[{\"mask\":\"255.0.0.0\"}]}", -EINVAL, "net[0].mask: needs ip"},
        {"{" KERNEL ",\"net\":[{\"ip\":\"::1\",\"mask\":\"255.0.0.0\"}]}", -EINVAL,
         "net[0].mask: '255"},
        {"{" KERNEL ",\"net\":[{\"mac\":\"01:00:00:00:00:00\"}]}", -EINVAL,
         "net[0].mac: is a multi"},
        {"{" KERNEL ",\"net\":[{\"host_mac\":\"00:00:00:00:00:00\"}]}", -EINVAL,
         "net[0].host_mac: is all"},
        {"{" KERNEL ",\"net\":[{\"fds\":[7],\"tap\":\"t\"}]}", -EINVAL, "net[0].tap: not possible"},
        {"{" KERNEL ",\"net\":[{\"fds\":[7],\"num_queues\":4}],\"cpus\":{\"boot_vcpus\":2}}",
         -EINVAL, "net[0].fds: 1 for 4"},
        {"{" KERNEL ",\"serial\":{\"mode\":\"tty\"}}", -EINVAL, "serial.mode: must be one of Off,"},
        {"{" KERNEL ",\"serial\":{\"mode\":\"Tty\"}}", -EINVAL, "console.mode: only one of"},
        {"{" KERNEL ",\"serial\":{\"mode\":\"File\"}}", -EINVAL, "serial.file: is missing"},
        {"{" KERNEL ",\"serial\":{\"mode\":\"Socket\"}}", -EINVAL, "serial.socket: is missing"},
        {"{" KERNEL ",\"console\":{\"mode\":\"Socket\"}}", -ENOTSUP, "console.mode: Socket"},
        {"{" KERNEL ",\"platform\":{\"num_pci_segments\":2}}", -ENOTSUP,
         "platform.num_pci_segments"},
        {"{" KERNEL ",\"vsock\":{\"cid\":3}}", -ENOTSUP, "vsock: not supported yet"},
        {"{" KERNEL ",\"watchdog\":true}", -ENOTSUP, "watchdog: not supported yet"},
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct vm_config cfg = {0};
        struct err err = {0};
        int rc = from_text(rows[i].text, &cfg, &err);

        if (rc != rows[i].rc || strncmp(err.msg, rows[i].msg, strlen(rows[i].msg)) != 0)
            fail_msg("%s: %d '%s', not '%s'", rows[i].text, rc, err.msg, rows[i].msg);
    }
}

static void test_json_comes_back_the_same(void **state)
{
    static const char text[] =
        "{\"cpus\":{\"boot_vcpus\":2,\"topology\":{\"threads_per_core\":2,\"cores_per_die\":1,"
        "\"dies_per_package\":1,\"packages\":1},\"nested\":false},"
        "\"memory\":{\"size\":0,\"zones\":[{\"id\":\"a\",\"size\":8192,\"shared\":true}]},"
        "\"payload\":{\"kernel\":\"/k\",\"initramfs\":\"/i\",\"cmdline\":\"a "
        "\\\"b\\\"\",\"firmware\":null},"
        "\"disks\":[{\"path\":\"/"
        "d\",\"iommu\":false,\"lock_granularity\":\"Full\",\"image_type\":\"Raw\","
        "\"rate_limiter_config\":null,\"queue_affinity\":[]}],"
        "\"net\":[{\"fds\":[5,6]},{\"tap\":\"t\",\"host_mac\":\"02:00:00:00:00:01\"}],"
        "\"serial\":{\"mode\":\"Socket\",\"socket\":\"/"
        "s\"},\"console\":{\"mode\":\"Pty\",\"iommu\":false},"
        "\"debug_console\":{\"mode\":\"File\",\"file\":\"/f\"},\"rng\":{\"src\":\"/"
        "r\",\"id\":\"__rng\"},"
        "\"platform\":{\"uuid\":\"11111111-2222-3333-4444-555555555555\",\"oem_strings\":[\"x\","
        "\"\"]},"
        "\"fs\":[],\"iommu\":false,\"watchdog\":false,\"balloon\":null}";
    struct vm_config cfg = {0}, again = {0}, copy = {0};
    char *first = NULL, *second = NULL, *third = NULL;
    size_t first_len = 0, second_len = 0, third_len = 0;
    struct err err = {0};

    (void)state;
    if (from_text(text, &cfg, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(cfg.nets[0].fds[0], -1);
    assert_int_equal(vm_config_to_text(&cfg, &first, &first_len), 0);
    if (vm_config_from_text(first, first_len, &again, &err))
        fail_msg("%s: %s", first, err.msg);
    assert_int_equal(vm_config_to_text(&again, &second, &second_len), 0);
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "\"net\":[{\"id\":\"_net1\",\"mac\":\""));
    assert_non_null(strstr(first, "\"nested\":false"));
    assert_int_equal(vm_config_copy(&cfg, &copy), 0);
    vm_config_release(&cfg);
    assert_int_equal(vm_config_to_text(&copy, &third, &third_len), 0);
    assert_string_equal(first, third);
    vm_config_release(&copy);
    vm_config_release(&again);
    free(first);
    free(second);
    free(third);
}

static void test_ids_do_not_collide_with_given_ones(void **state)
{
    struct vm_config cfg = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(
        from_text("{" KERNEL ",\"disks\":[{\"path\":\"/a\",\"id\":\"_disk1\"},"
                  "{\"path\":\"/b\"},{\"path\":\"/c\"}],\"net\":[{},{\"id\":\"_net3\"}]}",
                  &cfg, &err),
        0);
    assert_string_equal(cfg.disks[1].id, "_disk0");
    assert_string_equal(cfg.disks[2].id, "_disk2");
    assert_string_equal(cfg.nets[0].id, "_net4");
    assert_int_equal(vm_config_complete(&cfg, &err), 0);
    assert_string_equal(cfg.nets[0].id, "_net4");
    vm_config_release(&cfg);
}

static void test_limits_hold(void **state)
{
    struct vm_config cfg = {0};
    struct err err = {0};
    char value[32];

    (void)state;
    for (unsigned i = 0; i < VM_CONFIG_DISKS_MAX; i++) {
        (void)snprintf(value, sizeof(value), "path=/d%u", i);
        assert_int_equal(vm_config_from_option(&cfg, VM_OPT_DISK, value, &err), 0);
    }
    assert_int_equal(vm_config_from_option(&cfg, VM_OPT_DISK, "path=/x", &err), -E2BIG);
    assert_string_equal(err.msg, "--disk: more than 256");
    vm_config_release(&cfg);
}

static void test_an_option_becomes_the_json_of_its_device(void **state)
{
    struct json_object *obj = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(vm_config_option_json(VM_OPT_DISK, "path=/d,readonly=on", &obj, &err), 0);
    assert_string_equal(json_object_get_string(json_object_object_get(obj, "path")), "/d");
    assert_true(json_object_get_boolean(json_object_object_get(obj, "readonly")));
    assert_null(json_object_object_get(obj, "id"));
    json_object_put(obj);
    assert_int_equal(vm_config_option_json(VM_OPT_NET, "taps=1", &obj, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_but_a_kernel_gives_the_defaults),
        cmocka_unit_test(test_every_option_arrives),
        cmocka_unit_test(test_options_are_refused_by_name),
        cmocka_unit_test(test_what_asks_for_nothing_is_taken),
        cmocka_unit_test(test_json_is_refused_by_name),
        cmocka_unit_test(test_json_comes_back_the_same),
        cmocka_unit_test(test_ids_do_not_collide_with_given_ones),
        cmocka_unit_test(test_limits_hold),
        cmocka_unit_test(test_an_option_becomes_the_json_of_its_device),
    };

    return cmocka_run_group_tests_name("vm_config", tests, NULL, NULL);
}
