// What is done to words.
exports.kebab = require("lodash.kebabcase");
