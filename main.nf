#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { STA } from './workflows/sta'

workflow {
    main:
    record(params.outdir, [state: 'running'])
    workflow.onComplete = {
        record(params.outdir, [state: workflow.success ? 'finished' : 'failed', ended: time(workflow.complete), error: workflow.errorMessage])
        make_relion_project(params.outdir)
        if (workflow.success) {
            println "Results in ${params.outdir}:\n${file("${params.outdir}/summary.txt").text}"
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
    settings = params.findAll { name, _value -> name != 'outdir' }
    STA(
        groovy.json.JsonOutput.toJson([launch_dir: workflow.launchDir.toString(), params: new TreeMap(settings)]),
        given.findAll { path -> path.exists() },
        workflow.launchDir.toString(),
    )
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
