package com.example;

import java.util.Properties;

/** Prints a greeting in the words of a resource. */
public final class Main {
    public static void main(String[] arguments) throws Exception {
        Properties words = new Properties();
        words.load(Main.class.getResourceAsStream("/words.properties"));
        System.out.println(words.getProperty("greeting") + " " + Names.of(arguments));
    }
}
