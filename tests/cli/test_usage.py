"""The command line itself: verbs, options, help, man page, completions, exit statuses."""

import json
import re
import shutil
import subprocess

import harness

VERBS = ["run", "sdpa", "check", "show", "mask", "bench", "tune", "prebuild", "fuse", "cache", "doctor", "run-tests"]


class Usage(harness.Case):
    def test_version(self):
        self.assertRegex(self.ok("--version").stdout, r"^flexjit \d+\.\d+\.\d+\n$")

    def test_help(self):
        text = self.ok("--help").stdout
        for verb in VERBS:
            self.assertIn(f"\n  {verb} ", text)
            page = self.ok(verb, "--help").stdout
            self.assertTrue(page.startswith(f"usage: flexjit {verb}"))
            self.assertEqual(page, self.ok("help", verb).stdout)
            self.assertLessEqual(max(map(len, page.splitlines())), 100)

    def test_no_verb(self):
        self.assertEqual(self.flexjit().returncode, 2)

    def test_unknown_verb(self):
        self.fails(2, "did you mean 'bench'", "bnech")
        self.fails(2, "unknown verb 'frobnicate'", "frobnicate")

    def test_unknown_option(self):
        self.fails(2, "did you mean '--backward'", "run", "--bakward")
        self.fails(2, "unknown option '--quux'", "check", "--quux=1")
        self.fails(2, "unknown option '-z'", "show", "-z")

    def test_option_values(self):
        done = self.flexjit("check", "--json", "--score")
        self.assertEqual(done.returncode, 2)
        self.assertIn("needs a value", json.loads(done.stdout)["error"]["text"])
        self.fails(2, "takes no value", "run", "--backward=yes")
        self.fails(2, "given twice", "check", "--score", "score", "--score=score")
        for text in ("inf", "nan", "0x1p3", "1e999", "1e-999", "1.5x", "", " 1", "1 ", "-", "1,5"):
            self.fails(2, "takes a finite number", "bench", "--shape", "1,1,1,1,1,8", f"--scale={text}")
        for text in ("0", "1x", "", "-", "1.0", "1" * 30, "-" + "1" * 30):
            self.fails(2, "takes an integer from", "bench", "--shape", "1,1,1,1,1,8", f"--repeat={text}")
        self.fails(2, "from 0 to 2147483647", "bench", "--shape", "1,1,1,1,1,8", "--seed", "2147483648")

    def test_kernel_options(self):
        show = ("show", "--score", "score", "--stage", "plan", "--device", "cpu")
        self.fails(2, "'--option' takes NAME=VALUE, not 'tile_q'", *show, "--option", "tile_q")
        self.fails(2, "'--option' takes NAME=VALUE, not '=3'", *show, "--option", "=3")
        self.fails(2, "unknown kernel option 'tile': there are tile_q, tile_kv, ", *show, "-O", "tile=3")
        for value in ("", "x", "1.0", "64 ", "0x40", "9" * 30):
            self.fails(2, "kernel option 'tile_q' takes an integer", *show, "-O", f"tile_q={value}")
        self.fails(2, "kernel option 'isa' takes portable, avx2, avx512 or avx512bf16, not 'neon'", *show, "-O", "isa=neon")
        self.fails(2, "kernel option 'tile_q' is given twice", *show, "-O", "tile_q=48", "-O", "tile_q=96")
        self.fails(2, "'--option' does not go with it", *show, "-O", "tile_q=48", "--variant", "x")
        self.fails(2, "'--kernel' does not go with it", *show, "--kernel", "mma", "--variant", "x")
        self.fails(2, "unknown kernel 'cutlass'", *show, "--kernel", "cutlass")
        self.fails(2, "unknown option 'stages'", *show, "-O", "stages=1")
        self.fails(1, "legal are: 48, 96, 144, 192, 240", *show, "-O", "tile_q=64")
        self.fails(1, "no wgmma kernels", "show", "--score", "score", "--stage", "plan", "--device", "cuda",
                   "--arch", "sm_90", "--kernel", "wgmma")

    def test_names_of_choices(self):
        self.fails(2, "did you mean 'cpu'", "show", "--score", "score", "--stage", "plan", "--device", "cpuu")
        self.fails(2, "unknown stage 'xyzzy'", "show", "--score", "score", "--stage", "ir,xyzzy")
        self.fails(2, "unknown dtype 'F31'", "bench", "--shape", "1,1,1,1,1,8", "--dtype", "F31")

    def test_binding_form(self):
        for text in ("slopes", "=F32[8]", "slopes=F32", "slopes=F32[8", "slopes=F32[8]x", "slopes=F32[-1]", "slopes=Q7[8]",
                     "slopes=F32[1,1,1,1,1,1,1,1,1]", "q=F32[8]", "slopes=F32[99999999999999999999]"):
            with self.subTest(text):
                self.fails(2, "--bind", "check", "--score", "score", "--bind", text)
        self.fails(2, "bound twice", "check", "--score", "score", "--bind", "a=F32[]", "--bind", "a=F32[]")

    def test_param_form(self):
        self.fails(2, "NAME=EXPR", "check", "--score", "score", "--param", "WINDOW")

    def test_missing_arguments(self):
        self.fails(2, "--input FILE is missing", "run")
        self.fails(2, "--output FILE is missing", "run", "--input", "x")
        self.fails(2, "a mod is missing", "check")
        self.fails(2, "a mod is missing", "show")
        self.fails(2, "--shape is missing", "bench")
        self.fails(2, "FILE.test is missing", "run-tests")
        self.fails(2, "--score-mod", "check", "--score", "score", "--score-mod", "f")

    def test_two_mods(self):
        self.fails(2, "one MOD.py at most", "check", "a.py", "b.py")

    def test_devices_that_are_not_there(self):
        done = self.fails(3, "no C++ compiler for the emu device", "bench", "--shape", "1,1,1,1,1,8", "--device", "emu",
                   env={"FLEXJIT_CXX": "/nowhere", "FLEXJIT_CACHE_PATH": str(self.folder)})
        self.assertEqual(done.stderr.count("\n"), 1)
        self.fails(3, "no NVIDIA driver", "bench", "--shape", "1,1,1,1,1,8", "--device", "cuda",
                   env={"FLEXJIT_LIBCUDA": "/nowhere"})
        self.fails(2, "--arch", "bench", "--shape", "1,1,1,1,1,8", "--arch", "sm_90a")

    def test_shapes(self):
        for text in ("1,1,1,1,1", "1,1,1,1,1,1,1,1", "0,1,1,1,1,1", "1,1,1,1,1,x", "=,1,1,1,1,1", "1,1,1,9..8,1,1",
                     "1,1,1,-1,1,1", "1,1,1,1,1,", "1,1,1,99999999999999999999,1,1"):
            with self.subTest(text):
                self.fails(2, "is not of the form", "bench", "--shape", text)
        self.fails(2, "not a multiple", "bench", "--shape", "1,3,2,8,8,8")

    def test_no_color(self):
        self.assertNotIn("\033", self.flexjit("bnech").stderr)

    def test_closed_standard_output(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([harness.TOOL, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to standard output", done.stderr)


class Generated(harness.Case):
    """The man page and the completions come from the table that --help is printed from."""

    def options(self, verb):
        return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", self.ok(verb, "--help").stdout, re.MULTILINE))

    def test_man_page(self):
        page = self.ok("--dump-man").stdout
        self.assertTrue(page.startswith(".TH FLEXJIT 1 "))
        for verb in VERBS:
            section = page.replace("\\-", "-").split(f'.SS "flexjit {verb}', 1)[1].split("\n.S", 1)[0]
            for option in self.options(verb):
                self.assertIn(f"\\fB{option}\\fR", section)
        if shutil.which("groff"):
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True,
                                  check=True)
            self.assertEqual(done.stderr, "")

    def test_bash_completion(self):
        script = self.ok("--dump-completion", "bash").stdout
        if not shutil.which("bash"):
            self.skipTest("no bash")
        for verb in VERBS:
            words = self.complete(script, f'flexjit {verb} "--"').split()
            self.assertEqual(set(words), self.options(verb))
        self.assertEqual(self.complete(script, 'flexjit bench --dtype "B"').split(), ["BF16"])
        self.assertEqual(self.complete(script, 'flexjit cache "ex"').split(), ["explain", "export"])
        self.assertEqual(set(self.complete(script, 'flexjit ""').split()), {*VERBS, "--help", "--version"})

    def complete(self, script, words):
        program = f'{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _flexjit; echo "${{COMPREPLY[@]}}"'
        return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout

    def test_other_completions(self):
        for shell in ("zsh", "fish"):
            script = self.ok("--dump-completion", shell).stdout
            for verb in VERBS:
                self.assertIn(verb, script)
                for option in self.options(verb):
                    self.assertIn(option if shell == "zsh" else f"-l {option[2:]} ", script)
            if shutil.which(shell):
                subprocess.run([shell, "--no-execute"], input=script, text=True, check=True)
        self.assertEqual(self.flexjit("--dump-completion", "tcsh").returncode, 2)


class Json(harness.Case):
    def test_usage_error_is_one_object(self):
        done = self.flexjit("run", "--json", "--quux")
        report = json.loads(done.stdout)
        self.assertEqual(report["schema"], 1)
        self.assertEqual(report["error"]["status"], 2)
        self.assertIn("--quux", report["error"]["text"])


if __name__ == "__main__":
    harness.main()
