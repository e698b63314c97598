#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { STA } from './workflows/sta'

workflow {
    main:
    workflow.onComplete = {
        if (workflow.success) {
            def summary = file("${params.outdir}/summary.txt").text
            println "Results in ${params.outdir}:\n${summary}"
            if (summary.contains('Classes are to be chosen')) {
                def resume = workflow.commandLine.contains('-resume') ? '' : ' -resume'
                println "The run ends here until classes are chosen. To go on with, for example, classes 1 and 3:\n  ${workflow.commandLine}${resume} --keep_classes 1,3 --best_class 1\n"
            }
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
