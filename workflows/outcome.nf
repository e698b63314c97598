// What a run leaves besides its results: that it runs, how it ended, and that its output directory opens in RELION.

// What 'py2rely status' starts from, in the output directory: which run this is, and where its tasks are.
def note_run(place, state) {
    def about = [
        name: workflow.runName, session: workflow.sessionId.toString(), launch_dir: workflow.launchDir.toString(),
        work_dir: workflow.workDir.toString(), started: seconds(workflow.start), command: workflow.commandLine,
        profile: workflow.profile, host: java.net.InetAddress.getLocalHost().getHostName(), pid: ProcessHandle.current().pid(),
    ]
    def outdir = file(place)
    outdir.mkdirs()
    outdir.resolve('run.json.part').text = groovy.json.JsonOutput.toJson(about + state)
    outdir.resolve('run.json.part').moveTo(outdir.resolve('run.json'))
}

// Of a run whose data sets failed, Nextflow ends with an error, but calls it a success here.
def ended_well() {
    return workflow.success && workflow.stats.ignoredCount == 0
}

// Why a run failed that went on to its end.
def ignored() {
    return "Steps failed: ${workflow.stats.ignoredCount}. The run went on without their data sets."
}

def seconds(moment) {
    return moment.toInstant().toEpochMilli() / 1000
}

// The output directory opens in RELION, also after a failure: that must not hide how the run ended.
def make_relion_project(place) {
    def done = ["${projectDir}/bin/py2rely", 'task', 'project', file(place).toString()].execute()
    def text = new StringBuilder()
    done.waitForProcessOutput(text, text)
    if (done.exitValue() != 0) {
        log.warn("The output directory was not made a RELION project:\n${text}")
    }
}

// The pages on which classes are chosen, with the command to go on with: a task does not know how the run was started.
def complete_class_pages(place, command) {
    def known = groovy.json.JsonOutput.toJson(command).replace('<', '\\u003c')
    def projects = [file(place)] + file(place).listFiles().findAll { entry -> entry.isDirectory() }
    def jobs = projects.collect { project -> project / 'Select' }.findAll { entry -> entry.isDirectory() }.collectMany { select -> select.listFiles().toList() }
    def pages = jobs.findAll { job -> job.name.endsWith('_classes') && job.isDirectory() }.collectMany { job -> job.listFiles().toList() }.findAll { page -> page.name ==~ /classes\w*\.html/ }
    pages.each { page -> page.text = page.text.replaceFirst(/(id="run-command">).*?(<\/script>)/, "\$1${java.util.regex.Matcher.quoteReplacement(known)}\$2") }
    return pages.sort()
}

// The page and results.json of a run that failed, so that nothing of an earlier run looks like its result.
def report_failure(py2rely, outdir, run) {
    def known = java.nio.file.Files.createTempFile('py2rely', '.json')
    known.toFile().deleteOnExit()
    def failure = [step: '', what: (run.error_message ?: 'The run ended early.').readLines()[0], exit_code: run.exit_status]
    try {
        known.text = groovy.json.JsonOutput.toJson(run)
        outdir.mkdirs()
        (outdir / 'results.json').text = groovy.json.JsonOutput.toJson([schema_version: 1, status: 'failed', failure: failure, datasets: []])
        (outdir / 'report.html').delete()
        (outdir / 'summary.txt').delete()
        def command = [py2rely, 'task', 'failed', known.toString(), '--output', outdir.toString()].execute()
        def errors = new StringBuilder()
        command.waitForProcessOutput(new StringBuilder(), errors)
        return command.exitValue() == 0
            ? "The run failed. What was complete until then: ${outdir}/report.html\n${(outdir / 'summary.txt').text}"
            : "The run failed; there is no report, as py2rely does not run here: ${errors.readLines().findAll().takeRight(1).join()}"
    }
    catch (Exception e) {
        return "The run failed; there is no report: ${e.message}"
    }
}
