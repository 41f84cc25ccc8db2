const std = @import("std");
const words = @import("words");

pub fn main() void {
    std.debug.print("{s}\n", .{words.hello()});
}

test "it says hello" {
    try std.testing.expectEqualStrings("hello", words.hello());
}
