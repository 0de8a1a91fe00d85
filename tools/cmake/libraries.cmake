# Third-party libraries, each as chrysalis_<name>.  docs/decisions/ says why each is here.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# chrysalis_library(<name> <pkg-config module> [archive...])
#
# With CHRYSALIS_STATIC_LIBS the named archives are linked instead of the shared objects: the
# dynamic loader alone would otherwise cost more than the start of a VM may take.
function(chrysalis_library name module)
  pkg_check_modules(${name} REQUIRED QUIET ${module})
  add_library(chrysalis_${name} INTERFACE)
  target_include_directories(chrysalis_${name} SYSTEM INTERFACE ${${name}_INCLUDE_DIRS})
  if(CHRYSALIS_STATIC_LIBS AND ARGN)
    foreach(archive IN LISTS ARGN)
      find_library(${name}_${archive}_archive NAMES lib${archive}.a REQUIRED)
      target_link_libraries(chrysalis_${name} INTERFACE ${${name}_${archive}_archive})
    endforeach()
  else()
    target_link_libraries(chrysalis_${name} INTERFACE ${${name}_LINK_LIBRARIES})
  endif()
endfunction()

chrysalis_library(zstd libzstd zstd)
chrysalis_library(sqlite sqlite3 sqlite3)
chrysalis_library(openssl openssl ssl crypto)
chrysalis_library(seccomp libseccomp seccomp)
chrysalis_library(json json-c json-c)
chrysalis_library(uring liburing uring)
chrysalis_library(microhttpd libmicrohttpd)
chrysalis_library(uuid uuid uuid)
# Debian ships no archive of libcbor.
chrysalis_library(cbor libcbor)
target_link_libraries(chrysalis_sqlite INTERFACE m)
if(CHRYSALIS_TESTS)
  chrysalis_library(cmocka cmocka)
endif()
