// One binning that begins with oriented particles: they are reconstructed and masked on its grid, and refined from there.
include { EXTRACTION as EXTRACT } from './extraction'
include { RECONSTRUCTION as RECONSTRUCT_START } from './reconstruction'
include { MASK_POSTPROCESS as MASK_POSTPROCESS_START } from '../modules/relion/mask_postprocess'
include { PREPARE_REFERENCE } from '../modules/core/prepare_reference'
include { REFINEMENT } from './refinement'
include { json } from './json'

workflow LEVEL {
    take:
    levels // [meta, level settings, series, given mask, particle set, what the reference is made from, given map]

    main:
    EXTRACT(levels.map { meta, level, series, _mask, particles, _source, _map -> [meta, level.name, level.extract] + series + [particles] })
    RECONSTRUCT_START(
        levels.map { meta, level, series, _mask, _particles, source, _map -> [meta, "${level.name}_start".toString(), level.reconstruct] + series + [source] }
    )
    MASK_POSTPROCESS_START(
        levels.join(RECONSTRUCT_START.out).map { meta, level, _series, mask, _particles, _source, _map, maps ->
            [meta, "${level.name}_start".toString(), level.subMap(['size', 'pixel_size', 'diameter', 'mask', 'postprocess']), maps, mask]
        }
    )
    given = levels.filter { row -> row[6] }
    PREPARE_REFERENCE(given.map { row -> [row[0], [box: row[1].size, pixel_size: row[1].pixel_size, low_pass: row[1].refine.low_pass ?: 2 * row[1].pixel_size], row[6]] })
    references = RECONSTRUCT_START.out
        .join(levels.filter { row -> !row[6] }.map { row -> [row[0]] })
        .map { meta, maps -> [meta, [maps / 'half1.mrc', maps / 'half2.mrc']] }
        .mix(PREPARE_REFERENCE.out.map { meta, job -> [meta, job / 'reference.mrc'] })

    REFINEMENT(
        levels.join(EXTRACT.out).join(references).join(MASK_POSTPROCESS_START.out.mask).join(MASK_POSTPROCESS_START.out.job)
            .map { meta, level, series, mask, _particles, _source, _map, extract, reference, mask_job, postprocess ->
                [meta, level, series, mask, level.refine.low_pass ?: json(postprocess / 'job.json').low_pass, "Extract/${extract.name}/particles.star".toString(),
                    extract, [], [], reference, mask_job]
            }
    )

    emit:
    particles = REFINEMENT.out.particles
    finals = REFINEMENT.out.finals
    jobs = EXTRACT.out.mix(RECONSTRUCT_START.out, MASK_POSTPROCESS_START.out.job, PREPARE_REFERENCE.out, REFINEMENT.out.jobs)
}
