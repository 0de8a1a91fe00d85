/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a kernel, bzImage or not. */
#include "tests/fuzz/fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_boot_try(x86_bzimage_load, data, len);
    return 0;
}
