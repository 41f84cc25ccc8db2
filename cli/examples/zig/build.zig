const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.standardOptimizeOption(.{});
    const words = b.dependency("words", .{});
    const module = b.createModule(.{
        .root_source_file = b.path("src/main.zig"),
        .target = target,
        .optimize = optimize,
        .imports = &.{.{ .name = "words", .module = words.module("words") }},
    });
    b.installArtifact(b.addExecutable(.{ .name = "clock", .root_module = module }));
    const tests = b.addRunArtifact(b.addTest(.{ .root_module = module }));
    b.step("test", "Run the tests").dependOn(&tests.step);
}
