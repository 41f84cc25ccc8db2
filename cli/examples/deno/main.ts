import ms from "ms";

import built from "./built.json" with { type: "json" };

console.log(ms(built.milliseconds, { long: true }));
