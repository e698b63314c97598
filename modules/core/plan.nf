// The preflight and the plan: all problems of all data sets in one list, or what every step will do.
process PLAN {
    label 'core'
    publishDir path: { task.ext.outdir }, mode: 'copy', overwrite: 'deep'
    containerOptions { binds }
    debug true

    input:
    val binds
    path datasets
    path files, stageAs: 'inputs/?/*'

    output:
    path 'plan.json'

    script:
    """
    py2rely task plan ${datasets} --output plan.json
    """
}
