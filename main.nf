#!/usr/bin/env nextflow
// Sub-tomogram averaging with RELION 5: aligned tilt series and picks in, the best map out.
include { STA } from './workflows/sta'

workflow {
    main:
    workflow.onComplete = {
        if (workflow.success && !workflow.stubRun) {
            println "Results in ${params.outdir}:\n${file("${params.outdir}/summary.txt").text}"
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
