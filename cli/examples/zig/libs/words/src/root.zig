pub fn hello() []const u8 {
    return "hello";
}
