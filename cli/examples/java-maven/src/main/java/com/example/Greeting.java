package com.example;

/** Prints a greeting. */
public final class Greeting {
    public static void main(String[] arguments) {
        System.out.println("hello " + (arguments.length == 0 ? "world" : arguments[0]));
    }
}
