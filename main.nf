#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { check_configuration ; configuration ; most_steps ; parameter_files } from './workflows/configuration'
include { make_relion_project ; record ; report_failure ; time } from './workflows/record'
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
    given = parameter_files(params)
    check_configuration(params, workflow.containerEngine)
    settings = params.findAll { name, _value -> !(name in ['outdir'] + configuration()) }
    STA(
        groovy.json.JsonOutput.toJson([launch_dir: workflow.launchDir.toString(), params: new TreeMap(settings)]),
        given,
        workflow.launchDir.toString(),
        most_steps(given, settings),
    )
    STA.out.plan.subscribe { plan -> plans << plan.toString() }
    STA.out.jobs.subscribe { meta, job -> finished << [meta.id, meta.project, job.toString()] }
}
