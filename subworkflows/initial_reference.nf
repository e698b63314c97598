// The first reference, in one of three ways: from the user's map, from the particles alone, from known orientations.
include { PREPARE_REFERENCE } from '../modules/core/prepare_reference'
include { CLASS3D_ALIGN } from '../modules/relion/class3d_align'
include { INITIAL_MODEL } from '../modules/relion/initial_model'
include { RECONSTRUCTION as RECONSTRUCT_KNOWN } from './reconstruction'

workflow INITIAL_REFERENCE {
    take:
    datasets // [meta, initial reference settings, first level settings, series, particle set, extract job, template]

    main:
    modes = datasets.branch { _meta, settings, _level, _series, _particles, _extract, _template ->
        aligned: settings.mode == 'template' && settings.iterations > 0
        template: settings.mode == 'template'
        denovo: settings.mode == 'denovo'
        known: true
    }

    PREPARE_REFERENCE(
        modes.aligned.mix(modes.template).map { meta, settings, _level, _series, _particles, _extract, template -> [meta, settings.grid, template] }
    )
    templates = PREPARE_REFERENCE.out.map { meta, job -> [meta, job / 'reference.mrc'] }
    from_template = modes.template.join(templates).map { row -> [row[0], particles_of(row[5]), [], row[7]] }

    CLASS3D_ALIGN(
        modes.aligned.join(templates).map { meta, settings, level, series, _particles, extract, _template, reference ->
            [meta, level.name, settings.findAll { name, _value -> !(name in ['mode', 'grid']) }, series[1], extract, reference]
        }
    )
    from_alignment = CLASS3D_ALIGN.out.map { meta, job -> [meta, "Class3D/${job.name}/run_data.star".toString(), job, job / 'run_class001.mrc'] }

    INITIAL_MODEL(
        modes.denovo.map { meta, settings, level, series, _particles, extract, _template -> [meta, level.name, settings, series[1], extract] }
    )
    from_particles = modes.denovo.join(INITIAL_MODEL.out).map { row -> [row[0], particles_of(row[5]), [], row[7] / 'initial_model.mrc'] }

    RECONSTRUCT_KNOWN(
        modes.known.map { meta, _settings, level, series, particles, _extract, _template -> [meta, "${level.name}_start".toString(), level.reconstruct] + series + [particles] }
    )
    from_orientations = modes.known.join(RECONSTRUCT_KNOWN.out).map { row -> [row[0], particles_of(row[5]), [], row[7] / 'merged.mrc'] }

    emit:
    references = from_template.mix(from_alignment, from_particles, from_orientations) // [meta, particles STAR, alignment job, map]
    jobs = PREPARE_REFERENCE.out.mix(CLASS3D_ALIGN.out, INITIAL_MODEL.out, RECONSTRUCT_KNOWN.out) // [meta, job]
}

def particles_of(extract) {
    return "Extract/${extract.name}/particles.star".toString()
}
