package com.example;

/** Whom to greet. */
final class Names {
    private Names() {}

    static String of(String[] arguments) {
        return arguments.length == 0 ? "world" : String.join(" and ", arguments);
    }
}
