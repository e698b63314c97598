// Particle images of a level that is done are removed where their task left them: the one step that changes its input. What
// names them stays, so that everything computed from them is resumed.
include { binds_of } from '../../subworkflows/values'

process FREE_IMAGES {
    tag "${meta.label}${name}"
    label 'core'
    containerOptions { "${meta.binds} ${binds_of([workflow.workDir.toString()])}" }

    input:
    tuple val(meta), val(name), path(extract, stageAs: 'Extract/*')

    script:
    """
    py2rely task free-images ${extract}
    """
}
