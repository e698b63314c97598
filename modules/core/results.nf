// One machine-readable result of the whole run, the page made from it, and the lines that the run ends with.
process RESULTS {
    label 'core'
    publishDir path: { task.ext.outdir }, mode: 'copy'

    input:
    path plan
    val job_ids
    path jobs, stageAs: 'jobs/?/*'
    val map_ids
    path maps, stageAs: 'maps/?/*'
    val nextflow

    output:
    path 'results.json', emit: results
    path 'report.html', emit: report
    path 'summary.txt', emit: summary

    script:
    """
    py2rely task results ${plan} --jobs jobs --job-ids '${job_ids.join(',')}' \\
        --maps maps --map-ids '${map_ids.join(',')}' --nextflow ${nextflow} --output .
    """
}
