// One machine-readable result of the whole run, the page made from it, and the lines that the run ends with.
include { json_word } from '../../subworkflows/values'

process RESULTS {
    label 'core'
    publishDir path: { task.ext.outdir }, mode: 'copy', overwrite: 'deep'

    input:
    path plan
    val job_ids
    path jobs, stageAs: 'jobs/?/*'
    val map_ids
    path maps, stageAs: 'maps/?/*'
    val ended // data sets that came to the end of their steps
    val nextflow

    output:
    path 'results.json', emit: results
    path 'report.html', emit: report
    path 'summary.txt', emit: summary

    script:
    """
    printf %s ${json_word([jobs: job_ids, maps: map_ids, ended: ended, nextflow: nextflow])} > names.json
    py2rely task results ${plan} names.json --jobs jobs --maps maps --output .
    """
}
