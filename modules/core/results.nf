// One machine-readable result of the whole run, the page made from it, and the lines that the run ends with.
process RESULTS {
    label 'core'

    input:
    path plan
    val single
    path numbers, stageAs: 'jobs/?/*'
    val ids

    output:
    path 'results.json', emit: results
    path 'report.html', emit: report
    path 'summary.txt', emit: summary

    script:
    """
    py2rely task results ${plan} ${single ? '--single' : ''} --jobs jobs --ids '${ids.join(',')}' --output .
    """
}
