// Gathers what a Java build hands over: programs with the jars that they need when they run, libraries, web
// archives. Kiln runs it after the build; each module has left a file `kiln-classpath` in its output directory.
//
// Nothing is overwritten, jars get one time and one order of entries, and what is left out is named.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TimeZone;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.jar.Attributes;
import java.util.jar.Manifest;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipException;
import java.util.zip.ZipInputStream;
import java.util.zip.ZipOutputStream;

public final class Gather {
    static final Path OUT = Paths.get(".kiln/out");
    static final long TIME = 946684800000L;
    static final String[] SECONDARY = {"sources", "javadoc", "plain", "tests", "test-sources", "test-javadoc", "test-fixtures"};

    /** What one module's build left. */
    static final class Module {
        Path output;
        String path = "";
        String main;
        List<Path> classpath = new ArrayList<>();
        List<Path> archives = new ArrayList<>();
        List<Path> directories = new ArrayList<>();
    }

    /** Archives of all modules, by name: their times are made one, wherever they end. */
    static final Set<String> own = new TreeSet<>();

    /** The first word is the directory to look in; only the modules in the directories after it are collected, if there are any. */
    public static void main(String[] words) throws Exception {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        List<Module> modules = new ArrayList<>();
        find(Paths.get(words[0]).toFile(), modules);
        modules.sort((a, b) -> a.path.compareTo(b.path));
        for (Module module : modules) {
            for (Path archive : module.archives) {
                own.add(archive.getFileName().toString());
            }
        }
        if (words.length > 1) {
            List<String> wanted = Arrays.asList(words).subList(1, words.length);
            modules.removeIf(module -> !wanted.contains(module.path));
        }
        Set<String> carried = new TreeSet<>();
        for (Module module : modules) {
            carried.addAll(carriedBy(module));
        }
        Map<Module, List<Path>> handed = new LinkedHashMap<>();
        for (Module module : modules) {
            List<Path> archives = new ArrayList<>();
            for (Path archive : module.archives) {
                boolean part = carried.contains(name(archive)) && (mains(module, archive).isEmpty() || inside(module, archive));
                if (!part) {
                    archives.add(archive);
                }
            }
            if (!archives.isEmpty() || !module.directories.isEmpty()) {
                handed.put(module, archives);
            }
        }
        Files.createDirectories(OUT);
        for (Map.Entry<Module, List<Path>> entry : handed.entrySet()) {
            Module module = entry.getKey();
            Path to = handed.size() == 1 ? OUT : OUT.resolve(place(module, handed.keySet()));
            for (Path directory : module.directories) {
                boolean alone = module.directories.size() == 1 && entry.getValue().isEmpty();
                copyTree(directory, alone ? to : to.resolve(name(directory)));
            }
            boolean several = entry.getValue().size() > 1;
            for (Path archive : entry.getValue()) {
                boolean program = program(module, archive);
                hand(module, archive, several && program ? to.resolve(base(archive)) : to, program);
            }
        }
    }

    static String name(Path path) {
        return path.getFileName().toString();
    }

    /** A file's name without its end and the version in it. */
    static String base(Path archive) {
        String stem = name(archive).replaceFirst("\\.[a-z]+$", "");
        String base = stem.replaceFirst("-[0-9][^/]*$", "");
        return base.isEmpty() ? stem : base;
    }

    static String place(Module module, Set<Module> all) {
        if (!module.path.isEmpty()) {
            return module.path;
        }
        Path first = module.archives.isEmpty() ? module.directories.get(0) : module.archives.get(0);
        String name = base(first);
        for (Module other : all) {
            if (other.path.equals(name) || other.path.startsWith(name + "/")) {
                return name + "-root";
            }
        }
        return name;
    }

    static void find(File directory, List<Module> into) throws IOException {
        File[] files = directory.listFiles();
        if (files == null) {
            return;
        }
        Arrays.sort(files);
        for (File file : files) {
            boolean link = Files.isSymbolicLink(file.toPath());
            boolean skip = file.getName().equals(".git") || file.getName().equals("node_modules");
            if (file.isDirectory() && !link && !skip && !file.toPath().normalize().equals(Paths.get(".kiln"))) {
                find(file, into);
            } else if (file.getName().equals("kiln-classpath")) {
                into.add(module(file.toPath()));
            }
        }
    }

    static Module module(Path said) throws IOException {
        Module module = new Module();
        module.output = said.getParent();
        Path above = module.output.normalize().getParent();
        module.path = above == null ? "" : above.toString();
        for (String line : Files.readAllLines(said, StandardCharsets.UTF_8)) {
            if (line.startsWith("module=")) {
                module.path = line.substring(7);
            } else if (line.startsWith("main=")) {
                module.main = line.substring(5);
            } else {
                for (String path : line.split(File.pathSeparator)) {
                    if (!path.isEmpty() && Files.isRegularFile(Paths.get(path))) {
                        module.classpath.add(Paths.get(path));
                    }
                }
            }
        }
        Path quarkus = module.output.resolve("quarkus-app");
        if (Files.isRegularFile(quarkus.resolve("quarkus-run.jar"))) {
            module.directories.add(quarkus);
            return module;
        }
        List<Path> installed = list(module.output.resolve("install"));
        installed.removeIf(path -> !Files.isDirectory(path));
        module.directories.addAll(installed);
        List<Path> all = new ArrayList<>();
        for (Path directory : new Path[] {module.output, module.output.resolve("libs")}) {
            for (Path file : list(directory)) {
                if (name(file).matches(".*\\.(jar|war|ear)") && Files.isRegularFile(file)) {
                    all.add(file);
                }
            }
        }
        Set<String> names = all.stream().map(Gather::name).collect(Collectors.toCollection(TreeSet::new));
        for (Path file : all) {
            String why = secondary(file, names);
            for (Path directory : installed) {
                if (why == null && Files.exists(directory.resolve("lib").resolve(name(file)))) {
                    why = "is in " + directory;
                }
            }
            for (Path other : all) {
                if (why == null && !other.equals(file) && holds(other, file)) {
                    why = "is whole in " + name(other);
                }
            }
            if (why == null) {
                module.archives.add(file);
            } else {
                System.out.println("kiln: " + file.normalize() + " is not in the artifact: it " + why);
            }
        }
        return module;
    }

    static List<Path> list(Path directory) throws IOException {
        if (!Files.isDirectory(directory)) {
            return new ArrayList<>();
        }
        try (Stream<Path> files = Files.list(directory)) {
            return files.sorted().collect(Collectors.toCollection(ArrayList::new));
        }
    }

    /** Why an archive only goes along with another of the same build: null where it does not. */
    static String secondary(Path file, Set<String> names) {
        String name = name(file);
        if (name.startsWith("original-") && names.contains(name.substring(9))) {
            return "was shaded into " + name.substring(9);
        }
        for (String classifier : SECONDARY) {
            String end = "-" + classifier + ".jar";
            String stem = name.endsWith(end) ? name.substring(0, name.length() - end.length()) : null;
            if (stem == null) {
                continue;
            }
            boolean test = classifier.startsWith("test");
            if (test || names.contains(stem + ".jar") || names.contains(stem + ".war")) {
                return "has the classifier " + classifier;
            }
        }
        return null;
    }

    /** Whether one jar has every class of another, and more: it was made of it and what it needs. */
    static boolean holds(Path whole, Path part) throws IOException {
        if (!name(whole).endsWith(".jar") || !name(part).endsWith(".jar")) {
            return false;
        }
        Set<String> all = classes(whole);
        Set<String> some = classes(part);
        return !some.isEmpty() && all.size() > some.size() && all.containsAll(some);
    }

    static Set<String> classes(Path jar) throws IOException {
        return entries(Files.readAllBytes(jar)).keySet().stream().filter(n -> n.endsWith(".class")).collect(Collectors.toCollection(TreeSet::new));
    }

    /** The names of jars that a module's program has with it. */
    static Set<String> carriedBy(Module module) throws IOException {
        Set<String> names = new TreeSet<>();
        boolean program = !module.directories.isEmpty();
        for (Path archive : module.archives) {
            program |= !mains(module, archive).isEmpty() && name(archive).endsWith(".jar");
            for (String entry : entries(Files.readAllBytes(archive)).keySet()) {
                if (entry.endsWith(".jar")) {
                    names.add(entry.substring(entry.lastIndexOf('/') + 1));
                }
            }
        }
        if (program) {
            module.classpath.forEach(path -> names.add(name(path)));
        }
        return names;
    }

    static boolean inside(Module module, Path archive) {
        return module.directories.stream().anyMatch(directory -> Files.exists(directory.resolve("lib").resolve(name(archive))));
    }

    /** The classes that can be started: the one that is named, else all that have a main method. */
    static List<String> mains(Module module, Path archive) throws IOException {
        if (!name(archive).endsWith(".jar")) {
            return new ArrayList<>();
        }
        Map<String, byte[]> entries = entries(Files.readAllBytes(archive));
        String named = manifest(entries).getMainAttributes().getValue(Attributes.Name.MAIN_CLASS);
        if (named == null) {
            named = module.main;
        }
        if (named != null) {
            return new ArrayList<>(Arrays.asList(named));
        }
        List<String> found = new ArrayList<>();
        for (Map.Entry<String, byte[]> entry : entries.entrySet()) {
            boolean plain = entry.getKey().endsWith(".class") && !entry.getKey().startsWith("META-INF/");
            if (plain && !entry.getKey().startsWith("BOOT-INF/") && hasMain(entry.getValue())) {
                found.add(entry.getKey().replaceFirst("\\.class$", "").replace('/', '.'));
            }
        }
        return found;
    }

    static Manifest manifest(Map<String, byte[]> entries) throws IOException {
        byte[] data = entries.get("META-INF/MANIFEST.MF");
        return data == null ? new Manifest() : new Manifest(new ByteArrayInputStream(data));
    }

    /** Whether a class has `public static void main(String[])`. */
    static boolean hasMain(byte[] data) {
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(data))) {
            in.readLong();
            int count = in.readUnsignedShort();
            String[] texts = new String[count];
            for (int i = 1; i < count; i++) {
                int tag = in.readUnsignedByte();
                switch (tag) {
                    case 1: texts[i] = in.readUTF(); break;
                    case 5: case 6: in.readLong(); i++; break;
                    case 7: case 8: case 16: case 19: case 20: in.readUnsignedShort(); break;
                    case 15: in.readUnsignedByte(); in.readUnsignedShort(); break;
                    default: in.readInt();
                }
            }
            in.readUnsignedShort();
            in.readInt();
            int interfaces = in.readUnsignedShort();
            in.skipBytes(2 * interfaces);
            for (int kind = 0; kind < 2; kind++) {
                int members = in.readUnsignedShort();
                for (int i = 0; i < members; i++) {
                    int access = in.readUnsignedShort();
                    String name = texts[in.readUnsignedShort()];
                    String type = texts[in.readUnsignedShort()];
                    int attributes = in.readUnsignedShort();
                    for (int j = 0; j < attributes; j++) {
                        in.readUnsignedShort();
                        in.skipBytes(in.readInt());
                    }
                    boolean open = (access & 9) == 9;
                    if (kind == 1 && open && "main".equals(name) && "([Ljava/lang/String;)V".equals(type)) {
                        return true;
                    }
                }
            }
        } catch (IOException | RuntimeException broken) {
            // Not a class that this can read.
        }
        return false;
    }

    /** Whether an archive needs the jars of the class path beside it. */
    static boolean program(Module module, Path archive) throws IOException {
        if (!name(archive).endsWith(".jar") || Files.exists(archive.resolveSibling("original-" + name(archive)))) {
            return false;
        }
        Map<String, byte[]> entries = entries(Files.readAllBytes(archive));
        boolean fat = entries.keySet().stream().anyMatch(n -> n.startsWith("BOOT-INF/") || n.startsWith("WEB-INF/") || n.endsWith(".jar"));
        if (fat || mains(module, archive).isEmpty()) {
            return false;
        }
        boolean whole = !module.classpath.isEmpty();
        for (Path jar : module.classpath) {
            Set<String> classes = classes(jar);
            whole &= classes.isEmpty() || entries.keySet().containsAll(classes.stream().limit(1).collect(Collectors.toList()));
        }
        return !whole;
    }

    static void hand(Module module, Path archive, Path to, boolean program) throws IOException {
        Files.createDirectories(to);
        byte[] data = Files.readAllBytes(archive);
        if (!program) {
            write(to.resolve(name(archive)), settled(data, null));
            return;
        }
        Map<String, byte[]> entries = entries(data);
        Manifest manifest = manifest(entries);
        Attributes said = manifest.getMainAttributes();
        String given = said.getValue(Attributes.Name.CLASS_PATH);
        List<String> places = new ArrayList<>();
        Map<String, Path> taken = new TreeMap<>();
        for (Path jar : module.classpath) {
            String place = "lib/" + name(jar);
            for (String word : given == null ? new String[0] : given.split(" +")) {
                boolean within = !word.contains("..") && !word.startsWith("/") && !word.contains(":");
                place = within && (word.equals(name(jar)) || word.endsWith("/" + name(jar))) ? word : place;
            }
            Path above = jar.getParent();
            while (taken.containsKey(place) && above != null && above.getFileName() != null) {
                place = "lib/" + name(above) + "-" + name(jar);
                above = above.getParent();
            }
            taken.put(place, jar);
            places.add(place);
            byte[] content = Files.readAllBytes(jar);
            write(to.resolve(place), own.contains(name(jar)) ? settled(content, null) : content);
        }
        List<String> mains = mains(module, archive);
        boolean signed = entries.keySet().stream().anyMatch(n -> n.matches("META-INF/[^/]+\\.SF"));
        Manifest changed = null;
        if (!signed) {
            changed = manifest;
            said.putIfAbsent(Attributes.Name.MANIFEST_VERSION, "1.0");
            if (given == null && !places.isEmpty()) {
                said.put(Attributes.Name.CLASS_PATH, String.join(" ", places));
            }
            if (mains.size() == 1) {
                said.putIfAbsent(Attributes.Name.MAIN_CLASS, mains.get(0));
            }
        }
        write(to.resolve(name(archive)), settled(data, changed));
        if (!places.isEmpty() || mains.size() > 1) {
            for (String main : mains) {
                String command = mains.size() == 1 ? base(archive) : main.substring(main.lastIndexOf('.') + 1);
                script(to.resolve("bin").resolve(command), name(archive), places, main);
            }
        }
    }

    static void script(Path path, String jar, List<String> places, String main) throws IOException {
        StringBuilder classpath = new StringBuilder("$here/" + jar);
        places.forEach(place -> classpath.append(":$here/").append(place));
        String text = "#!/bin/sh\nhere=$(cd \"$(dirname \"$(readlink -f \"$0\")\")/..\" && pwd)\n"
            + "exec \"${JAVA_HOME:+$JAVA_HOME/bin/}java\" $JAVA_OPTS -cp \"" + classpath + "\" " + main.replace("$", "\\$") + " \"$@\"\n";
        write(path, text.getBytes(StandardCharsets.UTF_8));
        path.toFile().setExecutable(true, false);
    }

    static void write(Path path, byte[] data) throws IOException {
        Files.createDirectories(path.getParent());
        if (Files.exists(path) && !Arrays.equals(Files.readAllBytes(path), data)) {
            throw new IOException("kiln: two files of the artifact would have the path " + OUT.relativize(path) + ": rename one of them");
        }
        Files.write(path, data);
    }

    static void copyTree(Path from, Path to) throws IOException {
        try (Stream<Path> all = Files.walk(from)) {
            for (Path path : all.sorted().collect(Collectors.toList())) {
                Path target = to.resolve(from.relativize(path).toString());
                if (Files.isDirectory(path)) {
                    Files.createDirectories(target);
                    continue;
                }
                byte[] data = Files.readAllBytes(path);
                write(target, own.contains(name(path)) || name(path).equals("quarkus-run.jar") ? settled(data, null) : data);
                target.toFile().setExecutable(Files.isExecutable(path), false);
            }
        }
    }

    /** The content of a zip file by name; empty where it is none. */
    static Map<String, byte[]> entries(byte[] zip) throws IOException {
        Map<String, byte[]> found = new TreeMap<>();
        try (ZipInputStream in = new ZipInputStream(new ByteArrayInputStream(zip))) {
            for (ZipEntry entry; (entry = in.getNextEntry()) != null;) {
                found.put(entry.getName(), read(in));
            }
        } catch (ZipException unusual) {
            System.err.println("kiln: an archive cannot be read in order: " + unusual.getMessage());
        }
        return found;
    }

    static byte[] read(InputStream in) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        byte[] buffer = new byte[1 << 16];
        for (int n; (n = in.read(buffer)) > 0;) {
            out.write(buffer, 0, n);
        }
        return out.toByteArray();
    }

    /** A zip file with its entries in one order and of one time, perhaps with another manifest. */
    static byte[] settled(byte[] zip, Manifest manifest) throws IOException {
        if (zip.length < 4 || zip[0] != 'P' || zip[1] != 'K') {
            return zip;
        }
        Set<String> stored = new TreeSet<>();
        Map<String, byte[]> entries = new TreeMap<>((a, b) -> rank(a) != rank(b) ? rank(a) - rank(b) : a.compareTo(b));
        try (ZipInputStream in = new ZipInputStream(new ByteArrayInputStream(zip))) {
            for (ZipEntry entry; (entry = in.getNextEntry()) != null;) {
                String name = entry.getName();
                byte[] data = read(in);
                if (own.contains(name.substring(name.lastIndexOf('/') + 1))) {
                    data = settled(data, null);
                } else if (name.startsWith("META-INF/maven/") && name.endsWith("/pom.properties")) {
                    data = new String(data, StandardCharsets.ISO_8859_1).replaceAll("(?m)^#.*\r?\n", "").getBytes(StandardCharsets.ISO_8859_1);
                }
                entries.put(name, data);
                if (entry.getMethod() == ZipEntry.STORED) {
                    stored.add(name);
                }
            }
        } catch (ZipException unusual) {
            return zip;
        }
        if (manifest != null) {
            ByteArrayOutputStream text = new ByteArrayOutputStream();
            manifest.write(text);
            entries.put("META-INF/MANIFEST.MF", text.toByteArray());
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (ZipOutputStream zipped = new ZipOutputStream(out)) {
            for (Map.Entry<String, byte[]> one : entries.entrySet()) {
                ZipEntry entry = new ZipEntry(one.getKey());
                entry.setTime(TIME);
                if (stored.contains(one.getKey())) {
                    CRC32 sum = new CRC32();
                    sum.update(one.getValue());
                    entry.setMethod(ZipEntry.STORED);
                    entry.setSize(one.getValue().length);
                    entry.setCrc(sum.getValue());
                }
                zipped.putNextEntry(entry);
                zipped.write(one.getValue());
                zipped.closeEntry();
            }
        }
        return out.toByteArray();
    }

    static int rank(String name) {
        if (name.equals("META-INF/")) {
            return 0;
        }
        if (name.equals("META-INF/MANIFEST.MF")) {
            return 1;
        }
        return name.matches("META-INF/[^/]+\\.(SF|RSA|DSA|EC)") ? 2 : 3;
    }
}
