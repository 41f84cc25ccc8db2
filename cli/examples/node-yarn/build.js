// Uses a development dependency, as a bundler would be one.
require("node:fs").writeFileSync("built.txt", require("ms")(1000) + "\n");
