// Leaves what the program reads.
const fs = require("node:fs");

fs.mkdirSync("dist", { recursive: true });
fs.writeFileSync("dist/built.json", JSON.stringify({ built: true }));
