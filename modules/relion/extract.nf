// Particles at one binning: 2D stacks, pseudo-subtomograms, or subtomograms of tomograms that are made for them and go when
// these are cut. The new particle set has its shifts moved into the coordinates.
include { json_word } from '../../subworkflows/values'

process EXTRACT {
    tag "${meta.label}${job.name}${meta.group ? " ${meta.group}" : ''}"
    label 'cpu_parallel'
    cpus { job.settings.ranks * job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'symlink', overwrite: true

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Extract/${job.name}"), emit: job

    script:
    def directory = "Extract/${job.name}"
    def settings = job.settings
    def lost = "--lost ${json_word(job.lost)}${meta.group ? ' --group' : ''}"
    def mpi = settings.ranks > 1
    def cut = settings.images == 'subtomograms'
    def series = job.series.tomograms
    def make = "py2rely task tomograms ${directory} --particles ${particles}/particles.star --tilt-series ${series} " +
        "--binning ${settings.binning} --threads ${settings.ranks * settings.threads} --output tomograms"
    """
    ${cut ? make : ''}
    py2rely task relion ${lost} ${directory} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_subtomo${mpi ? '_mpi' : ''} \\
        --t ${cut ? 'tomograms/tomograms.star' : series} ${job.series.motion ? "--mot ${job.series.motion}" : ''} --p ${particles}/particles.star --o ${directory}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --j ${settings.threads} ${settings.options}
    ${cut ? "py2rely task settle-subtomograms ${directory} --tilt-series ${series} --tomograms tomograms" : ''}
    py2rely task check-extract ${directory} --particles ${particles}/particles.star ${cut ? '--of-tomograms' : ''} \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Extract/${job.name} particles.star
    """
}
