// Refinement at one binning and what is made of its result.
include { REFINE3D } from '../modules/relion/refine3d'
include { SELECT } from '../modules/core/select'
include { RECONSTRUCTION as RECONSTRUCT } from './reconstruction'
include { MASK_POSTPROCESS } from '../modules/relion/mask_postprocess'

workflow REFINE {
    take:
    starts // [meta, level settings, import job, low-pass, particles STAR, extract job, alignment job, reference map or half maps, mask job]

    main:
    REFINE3D(
        starts.map { meta, level, tilt_series, low_pass, star, extract, alignment, reference, mask ->
            [meta, level.binning, level.refine.findAll { name, _value -> name != 'low_pass' }, low_pass, star, tilt_series, extract, alignment, reference, mask]
        }
    )
    levels = starts.map { row -> row[0..2] }
    SELECT(levels.join(REFINE3D.out).map { meta, level, _tilt_series, refinement -> [meta, level.binning, level.select, refinement] })
    RECONSTRUCT(
        levels.join(SELECT.out).map { meta, level, tilt_series, particles -> [meta, 'result', level.reconstruct, tilt_series, particles] }
    )
    MASK_POSTPROCESS(
        levels.join(RECONSTRUCT.out).map { meta, level, _tilt_series, maps ->
            [meta, 'result', level.subMap(['binning', 'size', 'pixel_size', 'diameter', 'mask', 'postprocess']), maps]
        }
    )

    emit:
    particles = SELECT.out // [meta, particle set]
    maps = MASK_POSTPROCESS.out.job // [meta, post-process job]
    jobs = REFINE3D.out.mix(SELECT.out, RECONSTRUCT.out, MASK_POSTPROCESS.out.job) // [meta, job]
}
