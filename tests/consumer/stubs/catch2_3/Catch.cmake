function(catch_discover_tests target)
    add_test(NAME ${target} COMMAND ${target})
endfunction()
