// One binning after the first: start from the last particle set, reconstructed and masked on the new grid; refine;
// reconstruct, mask and post-process what came out.
include { EXTRACTION as EXTRACT } from './extraction'
include { RECONSTRUCTION as RECONSTRUCT_START } from './reconstruction'
include { MASK_POSTPROCESS as MASK_POSTPROCESS_START } from '../modules/relion/mask_postprocess'
include { REFINE } from './refine'

workflow LEVEL {
    take:
    levels // [meta, level settings, import job, particle set]

    main:
    EXTRACT(levels.map { meta, level, tilt_series, particles -> [meta, level.extract, tilt_series, particles] })
    RECONSTRUCT_START(levels.map { meta, level, tilt_series, particles -> [meta, 'start', level.reconstruct, tilt_series, particles] })
    MASK_POSTPROCESS_START(
        levels.join(RECONSTRUCT_START.out).map { meta, level, _t, _p, maps -> [meta, 'start', markings(level), maps] }
    )
    start = EXTRACT.out
        .join(RECONSTRUCT_START.out)
        .join(MASK_POSTPROCESS_START.out.mask)
        .join(MASK_POSTPROCESS_START.out.job)
        .map { meta, extract, maps, mask, postprocess ->
            [meta, low_pass(postprocess), "Extract/${extract.name}/particles.star", extract, [], [maps / 'half1.mrc', maps / 'half2.mrc'], mask]
        }
    REFINE(levels.map { meta, level, tilt_series, _particles -> [meta, level, tilt_series] }.join(start))

    emit:
    particles = REFINE.out.particles
    maps = REFINE.out.maps
    jobs = EXTRACT.out.mix(RECONSTRUCT_START.out, MASK_POSTPROCESS_START.out.job, REFINE.out.jobs)
}

def low_pass(postprocess) {
    return new groovy.json.JsonSlurper().parse(postprocess / 'job.json').low_pass
}

def markings(level) {
    return level.subMap(['binning', 'size', 'pixel_size', 'diameter', 'mask', 'postprocess'])
}
