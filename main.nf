#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { check_configuration ; check_texts ; configuration ; help_text ; needs_of ; parameter_files ; typed } from './workflows/configuration'
include { complete_class_pages ; ended_well ; ignored ; make_relion_project ; note_run ; report_failure ; seconds } from './workflows/outcome'
include { STA } from './workflows/sta'

workflow {
    main:
    parameters = typed(params)
    if (parameters.help) {
        println help_text(workflow.scriptFile.parent.toString())
    }
    else {
        plans = [].asSynchronized()
        finished = [].asSynchronized()
        ended = [].asSynchronized()
        check_texts(parameters, params)
        if (!workflow.preview) {
            note_run(parameters.outdir, [state: 'running'])
        }
        workflow.onComplete = {
            if (workflow.preview) {
                return // nothing was run, and what is in the output directory is of another run
            }
            note_run(parameters.outdir, [state: ended_well() ? 'finished' : 'failed', ended: seconds(workflow.complete), error: ended_well() ? null : workflow.errorMessage ?: ignored()])
            make_relion_project(parameters.outdir)
            def pages = complete_class_pages(parameters.outdir, workflow.commandLine)
            if (ended_well()) {
                def summary = file("${parameters.outdir}/summary.txt").text
                println "Results in ${parameters.outdir}:\n${summary}"
                def resume = workflow.commandLine.contains('-resume') ? '' : ' -resume'
                if (summary.contains('Classes of slabs are to be chosen')) {
                    println "The run ends here until classes are chosen. To go on with, for example, classes 1 and 3:\n  ${workflow.commandLine}${resume} --class2D_keep 1,3\n"
                }
                if (summary.contains('Classes are to be chosen')) {
                    println "The run ends here until classes are chosen. To go on with, for example, classes 1 and 3:\n  ${workflow.commandLine}${resume} --keep_classes 1,3 --best_class 1\n"
                    println "To choose by looking, open in a browser:\n${pages.collect { page -> "  ${page}\n" }.join()}"
                }
            }
            else {
                println report_failure(
                    "${projectDir}/bin/py2rely".toString(),
                    file(parameters.outdir),
                    [
                        plan: plans[0] ?: '', jobs: finished, ended: ended, outdir: file(parameters.outdir).toString(), nextflow: workflow.nextflow.version.toString(),
                        error_report: workflow.errorReport ?: '', error_message: workflow.errorMessage ?: '', exit_status: workflow.exitStatus,
                    ],
                )
            }
        }
        workflow.onError = {
            // Nextflow shows only the last lines of what a task printed: the list of problems is printed whole.
            def place = (workflow.errorReport ?: '') =~ /Work dir:\s+(\S.*)/
            def problems = place ? file("${place[0][1].trim()}/problems.txt") : null
            if (problems?.exists()) {
                println "\n${problems.text}"
            }
        }
        given = parameter_files(parameters)
        check_configuration(parameters, workflow.containerEngine)
        settings = parameters.findAll { name, _value -> !(name in ['outdir', 'help'] + configuration()) }
        STA(
            groovy.json.JsonOutput.toJson([launch_dir: workflow.launchDir.toString(), params: new TreeMap(settings)]),
            given,
            needs_of(given, settings),
        )
        STA.out.plan.subscribe { plan -> plans << plan.toString() }
        STA.out.ended.subscribe { meta, _state -> ended << meta.id }
        STA.out.jobs.subscribe { meta, job -> finished << [meta.id, meta.project, job.toString()] }
    }
}
