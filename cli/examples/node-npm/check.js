// Runs after the installation, and needs the sources.
require("node:fs").accessSync("src/main.js");
