// Refinement at one binning and what is made of its result.
include { REFINE3D } from '../modules/relion/refine3d'
include { SELECT } from '../modules/core/select'
include { RECONSTRUCTION as RECONSTRUCT } from './reconstruction'
include { MASK_POSTPROCESS } from '../modules/relion/mask_postprocess'

workflow REFINE {
    take:
    // [meta, level settings, series, given mask], low-pass, particles STAR, its jobs: extract, alignment, selection;
    // reference map or half maps, mask job
    starts

    main:
    REFINE3D(
        starts.map { meta, level, series, _given, low_pass, star, extract, alignment, selection, reference, mask ->
            [meta, level.name, level.refine.findAll { name, _value -> name != 'low_pass' }, low_pass, star] +
                series + [extract, alignment, selection, reference, mask]
        }
    )
    levels = starts.map { row -> row[0..3] }
    SELECT(levels.join(REFINE3D.out).map { meta, level, _series, _given, refinement -> [meta, level.name, level.select, refinement] })
    RECONSTRUCT(
        levels.join(SELECT.out).map { meta, level, series, _given, particles ->
            [meta, "${level.name}_result".toString(), level.reconstruct] + series + [particles]
        }
    )
    MASK_POSTPROCESS(
        levels.join(RECONSTRUCT.out).map { meta, level, _series, given, maps ->
            [meta, "${level.name}_result".toString(), level.subMap(['size', 'pixel_size', 'diameter', 'mask', 'postprocess']), maps, given]
        }
    )

    emit:
    results = SELECT.out.join(REFINE3D.out).join(RECONSTRUCT.out).join(MASK_POSTPROCESS.out.mask).join(MASK_POSTPROCESS.out.job) // [meta, particle set, refinement, half maps, mask job, post-process job]
    jobs = REFINE3D.out.mix(SELECT.out, RECONSTRUCT.out, MASK_POSTPROCESS.out.job) // [meta, job]
}
