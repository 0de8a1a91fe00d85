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
chrysalis_library(microhttpd libmicrohttpd microhttpd)
chrysalis_library(uuid uuid uuid)
target_link_libraries(chrysalis_sqlite INTERFACE m)
if(CHRYSALIS_TESTS)
  chrysalis_library(cmocka cmocka)
endif()

# libmicrohttpd.a is built with TLS, which is never asked of it here; GnuTLS behind it would be
# most of the start of a program, and has no archive that links.  Its functions are put in place
# as ones that abort.  docs/decisions/0004-http-server.md
if(CHRYSALIS_STATIC_LIBS)
  execute_process(COMMAND ${CMAKE_NM} ${microhttpd_microhttpd_archive}
                  OUTPUT_VARIABLE symbols ERROR_QUIET COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "U gnutls_[a-z0-9_]+" symbols "${symbols}")
  list(TRANSFORM symbols REPLACE "^U " "")
  list(REMOVE_DUPLICATES symbols)
  set(source "#include <stdlib.h>\n")
  foreach(symbol IN LISTS symbols)
    if(symbol MATCHES "^gnutls_global_(init|deinit)$")
      string(APPEND source "int ${symbol}(void);\nint ${symbol}(void) { return 0; }\n")
    elseif(symbol STREQUAL "gnutls_malloc")
      string(APPEND source "extern void *(*gnutls_malloc)(size_t);\n"
                           "void *(*gnutls_malloc)(size_t) = malloc;\n")
    else()
      string(APPEND source "void ${symbol}(void);\nvoid ${symbol}(void) { abort(); }\n")
    endif()
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/gnutls_absent.c CONTENT "${source}" @ONLY)
  add_library(gnutls_absent STATIC ${CMAKE_BINARY_DIR}/gnutls_absent.c)
  set_target_properties(gnutls_absent PROPERTIES C_VISIBILITY_PRESET hidden)
  target_link_libraries(gnutls_absent PRIVATE chrysalis_flags)
  target_link_libraries(chrysalis_microhttpd INTERFACE gnutls_absent)
endif()
