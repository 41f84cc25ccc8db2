// Prints a duration in words.
const ms = require("ms");

console.log(ms(ms(process.argv[2] || "90m"), { long: true }));
