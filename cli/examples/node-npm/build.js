// Copies the sources to dist, and says so in colour: what a bundler would do.
const fs = require("node:fs");
const colors = require("picocolors");

fs.mkdirSync("dist", { recursive: true });
fs.copyFileSync("src/main.js", "dist/main.js");
console.log(colors.green("built dist/main.js"));
