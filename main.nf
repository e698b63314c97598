#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { STA } from './workflows/sta'

workflow {
    main:
    plans = [].asSynchronized()
    finished = [].asSynchronized()
    record(params.outdir, [state: 'running'])
    workflow.onComplete = {
        record(params.outdir, [state: workflow.success ? 'finished' : 'failed', ended: time(workflow.complete), error: workflow.errorMessage])
        make_relion_project(params.outdir)
        if (workflow.success) {
            def summary = file("${params.outdir}/summary.txt").text
            println "Results in ${params.outdir}:\n${summary}"
            if (summary.contains('Classes are to be chosen')) {
                def resume = workflow.commandLine.contains('-resume') ? '' : ' -resume'
                println "The run ends here until classes are chosen. To go on with, for example, classes 1 and 3:\n  ${workflow.commandLine}${resume} --keep_classes 1,3 --best_class 1\n"
            }
        }
        else {
            println report_failure(
                "${projectDir}/bin/py2rely".toString(),
                file(params.outdir),
                [
                    plan: plans[0] ?: '', jobs: finished, nextflow: workflow.nextflow.version.toString(),
                    error_report: workflow.errorReport ?: '', error_message: workflow.errorMessage ?: '', exit_status: workflow.exitStatus,
                ],
            )
        }
    }
    workflow.onError = {
        // Nextflow shows only the last lines of what a task printed: the list of problems is printed whole.
        def task = (workflow.errorReport ?: '') =~ /Work dir:\s+(\S.*)/
        def problems = task ? file("${task[0][1].trim()}/problems.txt") : null
        if (problems?.exists()) {
            println "\n${problems.text}"
        }
    }
    given = params.sample_sheet
        ? [file(params.sample_sheet)] + (file(params.sample_sheet).exists() ? file(params.sample_sheet).splitCsv(header: true).findResults { row -> row.parameters ? file(row.parameters) : null } : [])
        : (params.parameter ? [file(params.parameter)] : [])
    check_configuration(params, workflow.containerEngine)
    settings = params.findAll { name, _value -> !(name in ['outdir'] + configuration()) }
    STA(
        groovy.json.JsonOutput.toJson([launch_dir: workflow.launchDir.toString(), params: new TreeMap(settings)]),
        given.findAll { path -> path.exists() },
        workflow.launchDir.toString(),
        most_steps(given, settings),
    )
    STA.out.plan.subscribe { plan -> plans << plan.toString() }
    STA.out.jobs.subscribe { meta, job -> finished << [meta.id, meta.project, job.toString()] }
}

// How many levels and cycles of polishing a data set has at most: what cannot be needed is not set up, as that takes time.
// What cannot be read here counts as the most that there is; the preflight says what is wrong with it.
def most_steps(files, given) {
    def recipes = files.findAll { path -> path.exists() && path.name.endsWith('.json') }.collect { path -> parsed(path) } + [given]
    if (recipes.any { recipe -> !(recipe instanceof Map) }) {
        return [levels: 8, cycles: 10]
    }
    def lists = recipes.collect { recipe -> "${recipe.resolutions?.binning_list ?: ''}".findAll(/\d+/) }.findAll()
    def cycles = recipes.collect { recipe -> "${recipe.polishing?.cycles ?: 5}" }.findAll { text -> text ==~ /\d+/ }.collect { text -> text as int }
    def polished = given.sample_sheet || given.start != 'picks' || !lists || lists.any { list -> '1' in list }
    return [levels: (lists.collect { list -> list.size() } + [3]).max(), cycles: polished ? (cycles + [1]).max() : 1]
}

def parsed(path) {
    try {
        return new groovy.json.JsonSlurper().parse(path)
    }
    catch (Exception e) {
        return e
    }
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
            ? "The run failed. What was complete until then: ${outdir}/report.html"
            : "The run failed; there is no report, as py2rely does not run here: ${errors.readLines().findAll().takeRight(1).join()}"
    }
    catch (Exception e) {
        return "The run failed; there is no report: ${e.message}"
    }
}

// What 'py2rely status' starts from, in the output directory: which run this is, and where its tasks are.
def record(place, state) {
    def about = [
        name: workflow.runName, session: workflow.sessionId.toString(), launch_dir: workflow.launchDir.toString(),
        work_dir: workflow.workDir.toString(), started: time(workflow.start), command: workflow.commandLine,
        profile: workflow.profile, host: java.net.InetAddress.getLocalHost().getHostName(), pid: ProcessHandle.current().pid(),
    ]
    def outdir = file(place)
    outdir.mkdirs()
    outdir.resolve('run.json.part').text = groovy.json.JsonOutput.toJson(about + state)
    outdir.resolve('run.json.part').moveTo(outdir.resolve('run.json'))
}

def time(moment) {
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

// How and where tasks run: no part of what is computed, and so of no task's hash. The same list is in request.py.
def configuration() {
    return [
        'image', 'relion_load', 'timeout', 'slurm_partition', 'slurm_gpu_partition', 'slurm_account', 'slurm_qos', 'slurm_constraint',
        'gpu_constraint', 'cpu_constraint', 'gpu_request', 'gpu_type', 'slurm_options', 'slurm_memory_per_cpu', 'slurm_core', 'slurm_queue_size', 'slurm_poll',
    ]
}

def check_configuration(given, container_engine) {
    if (container_engine && !given.image) {
        error("There is no image.\n    to do: give --image FILE.sif, or set it once with 'py2rely config --image FILE.sif'; 'make image' builds one.")
    }
    if (container_engine && given.image.toString().startsWith('/') && !file(given.image).exists()) {
        error("The image is missing.\n    where: ${given.image}\n    to do: correct --image, or build one with 'make image'.")
    }
    if (!(given.gpu_request in ['gres', 'gpus'])) {
        error("gpu_request is '${given.gpu_request}'.\n    expected: gres (--gres=gpu:N) or gpus (--gpus=N)")
    }
}
