# Every compiler and linker flag of the project, on one target that all others link.

add_library(chrysalis_flags INTERFACE)
target_include_directories(chrysalis_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(chrysalis_flags INTERFACE _GNU_SOURCE
                           CHRYSALIS_VERSION="${PROJECT_VERSION}")

target_compile_options(chrysalis_flags INTERFACE
  -UNDEBUG # assertions stay in optimised builds
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
  -Wpointer-arith -Wwrite-strings -Wundef -Wvla -Wconversion -Wsign-conversion -Wcast-qual
  -Wcast-align -Wformat=2 -Wimplicit-fallthrough -Wswitch-enum
  -Wdouble-promotion -fno-strict-aliasing -fno-common)

if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(chrysalis_flags INTERFACE
    -Wno-format-truncation -Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wtrampolines)
else()
  # KVM's structs end in arrays; a buffer for one is a struct around it.
  target_compile_options(chrysalis_flags INTERFACE -Wthread-safety
    -Wno-gnu-variable-sized-type-not-at-end)
endif()

# cmocka's assertions are functions that the compiler believes to return: in tests it sees null
# pointers followed that no test would have reached.
target_compile_options(chrysalis_flags INTERFACE
  $<$<NOT:$<BOOL:$<TARGET_PROPERTY:CHRYSALIS_TEST>>>:-Wnull-dereference>)

if(CHRYSALIS_WERROR)
  target_compile_options(chrysalis_flags INTERFACE -Werror)
endif()

if(CHRYSALIS_SANITIZE)
  target_compile_options(chrysalis_flags INTERFACE
    -fsanitize=${CHRYSALIS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(chrysalis_flags INTERFACE -fsanitize=${CHRYSALIS_SANITIZE})
  # The sanitizers' own instrumentation defeats the flow analysis behind these two.
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(chrysalis_flags INTERFACE
      -Wno-null-dereference -Wno-maybe-uninitialized)
  endif()
endif()

# Every library is instrumented; only the fuzz targets link libFuzzer's main().
if(CHRYSALIS_FUZZ)
  target_compile_options(chrysalis_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(chrysalis_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(CHRYSALIS_COVERAGE)
  target_compile_options(chrysalis_flags INTERFACE --coverage)
  target_link_options(chrysalis_flags INTERFACE --coverage)
endif()

# Hardening, for programs that meet hostile input: every optimised build without sanitizers.
if(NOT CHRYSALIS_SANITIZE AND NOT CHRYSALIS_COVERAGE)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  target_compile_options(chrysalis_flags INTERFACE
    -fstack-protector-strong -fstack-clash-protection -fcf-protection=full
    $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  target_link_options(chrysalis_flags INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack)
endif()

# Relocations in a tenth of the space: the loader of the statically linked programs has 22,000 of
# them to read before main().
include(CheckLinkerFlag)
check_linker_flag(C "-Wl,-z,pack-relative-relocs" CHRYSALIS_HAS_PACKED_RELOCATIONS)
if(CHRYSALIS_STATIC_LIBS AND CHRYSALIS_HAS_PACKED_RELOCATIONS)
  target_link_options(chrysalis_flags INTERFACE -Wl,-z,pack-relative-relocs)
endif()
