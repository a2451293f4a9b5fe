# One interface target that every room links: language level, warnings, sanitizers, processor.
add_library(f2b_flags INTERFACE)
target_include_directories(f2b_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(f2b_flags INTERFACE _GNU_SOURCE)
target_compile_options(f2b_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wpedantic -Wshadow
                       -Wstrict-prototypes -Wmissing-prototypes -Wno-missing-field-initializers
                       -march=${F2B_MARCH}>)
if(F2B_WERROR)
  target_compile_options(f2b_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>)
endif()
if(F2B_SANITIZE)
  target_compile_options(f2b_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=address,undefined
                         -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1>)
  target_link_options(f2b_flags INTERFACE -fsanitize=address,undefined)
endif()
set(CMAKE_C_FLAGS_RELEASE "-O3 -g1")
