import ms from "ms";

export function length(milliseconds: number): string {
  return ms(milliseconds, { long: true });
}
