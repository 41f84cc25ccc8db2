import { length } from "./length";

console.log(length(7_200_000));
