// One machine-readable result of the whole run, and the page made from it.
process RESULTS {
    label 'core'

    input:
    path plan
    val single
    path numbers, stageAs: 'jobs/?/*'
    path maps, stageAs: 'maps/?/*'

    output:
    path 'results.json', emit: results
    path 'report.html', emit: report

    script:
    """
    py2rely task results ${plan} ${single ? '--single' : ''} --jobs jobs --maps maps --output .
    """
}
