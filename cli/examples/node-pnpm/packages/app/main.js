// Prints a phrase in kebab case, and when it was built.
const { kebab } = require("@phrases/words");

console.log(kebab(process.argv[2] || "one phrase"), require("./dist/built.json").built);
