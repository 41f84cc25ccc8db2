// Prints a pattern that matches its argument.
console.log(require("escape-string-regexp")(process.argv[2] || "1+1"));
